//! Bad days: PostgreSQL that dies, refuses or is not there; clients that break the protocol or leave; signals; bad
//! files. Each has a clear message, no panic (every `Site` looks for one in the pooler's log), no server left in a
//! wrong state.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bytes;
mod client;
mod files;
mod lifecycle;
mod postgres;
