//! SQL text to fingerprint: the query with its literals taken out, and an id for it.
//!
//! One lexer serves all: [`scan`] hashes the tokens without allocating, [`normalize`] writes them out. Comments
//! and layout do not matter, literals and parameters become `$n`, lists in `IN (…)` and rows of `VALUES` fold
//! into one. The id depends on nothing but the text: the same over runs, machines and versions.

mod catalog;
mod command;
mod effects;
mod lexer;
mod normal;
mod rewrite;
mod shape;
mod target;
mod text;

pub use catalog::Catalog;
pub use command::Command;
pub use effects::Effects;
pub use rewrite::{Template, reads_only, values};
pub use shape::{Place, Shape, scan};
pub use target::{deallocate_name, set_target, tables};
pub use text::normalize;

/// A fingerprint's public name: 16 hexadecimal digits.
pub fn hex(id: u64) -> String {
    format!("{id:016x}")
}
