//! Snapshot, catalog and planner to findings.
//!
//! [`pool_size`] replays recorded checkouts through the pool's own policy, [`indexes`] asks the planner what an
//! index would be worth, [`queries`] reads the statements themselves, [`apply`] writes and runs migrations, and
//! [`doctor`] looks at a live database. Nothing here writes unless it is in [`apply`].

pub mod apply;
pub mod catalog;
pub mod doctor;
pub mod indexes;
pub mod pool_size;
pub mod queries;
mod session;
pub mod statement;

pub use pool_size::{PoolAdvice, Targets, pool_size};

/// Why advice could not be given.
#[derive(Debug, thiserror::Error)]
pub enum AdvisorError {
    /// The database refused or broke off a statement of ours.
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A file could not be written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// Something else, said in words.
    #[error("{0}")]
    Other(String),
}

/// The server's own message where there is one: `tokio_postgres::Error` alone only says "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(fault) => format!("{} (SQLSTATE {})", fault.message(), fault.code().code()),
        None => error.to_string(),
    }
}

/// `name` as an SQL identifier, quoted where it must be.
pub fn quote(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !reserved(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Whether the parser refuses `name` as a column of a table.
fn reserved(name: &str) -> bool {
    pg_query::parse(&format!("SELECT {name} FROM {name}")).is_err()
}
