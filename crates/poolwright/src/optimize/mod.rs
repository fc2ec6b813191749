//! The five phases on one database: what is told to the pooler, what is read from it, and the verdict.

pub mod accept;
pub mod build;
pub mod child;
pub mod consent;
pub mod example;
pub mod five;
pub mod memory;
pub mod pace;
pub mod panels;
pub mod phases;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod prometheus;
pub mod session;
pub mod settings;
pub mod verdict;
pub mod watch;
