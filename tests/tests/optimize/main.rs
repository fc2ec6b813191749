//! `poolwright optimize` and `poolwright demo`, run as a user runs them.
#![allow(clippy::unwrap_used)]

mod demo;
mod foreign;
mod workspace;
