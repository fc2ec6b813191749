//! The five phases on one database: what is told to the pooler, what is read from it, and the verdict.
#![allow(dead_code)] // The phases that call these parts are not written yet.

pub mod child;
pub mod example;
pub mod panels;
pub mod plan;
pub mod prometheus;
pub mod settings;
pub mod verdict;
