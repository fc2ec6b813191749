//! The laboratory: a throwaway PostgreSQL, a workload described in a file, an open-loop load generator and the
//! memory that backends use. Everything here measures; nothing here judges.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod binaries;
pub mod kept;
pub mod load;
pub mod memory;
pub mod postgres;
pub mod prometheus;
pub mod script;
pub mod sustained;
pub mod workload;
