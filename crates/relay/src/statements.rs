//! Texts of named prepared statements, each once for a pool.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{StatementInfo, rewriting::Substitutes};

/// Texts below which none is forgotten.
const TRIM_MIN: usize = 1_024;

/// One statement text with its parameter types.
#[derive(Debug)]
pub struct Statement {
    /// Number, never used again within a pool.
    pub id: u64,
    /// Name on servers.
    pub name: Box<[u8]>,
    /// Body of Parse behind the name: text, zero, parameter types.
    pub tail: Box<[u8]>,
    /// Facts about the text.
    pub info: StatementInfo,
}

/// All named statements of a pool's clients, by text.
#[derive(Default)]
pub struct Statements {
    by_tail: HashMap<Box<[u8]>, Arc<Statement>, FixedState>,
    next: u64,
    /// Texts at which those that nobody knows any more are looked for.
    trim_at: usize,
    pub(crate) substitutes: Substitutes,
}

impl Statements {
    /// The statement with this Parse tail, made when it is new.
    pub fn intern(&mut self, tail: &[u8], info: impl FnOnce() -> StatementInfo) -> Arc<Statement> {
        if let Some(known) = self.by_tail.get(tail) {
            return Arc::clone(known);
        }
        if self.by_tail.len() >= self.trim_at {
            self.trim(0);
            self.trim_at = TRIM_MIN.max(2 * self.by_tail.len());
        }
        let statement = Arc::new(self.number(tail, info()));
        self.by_tail.insert(tail.into(), Arc::clone(&statement));
        statement
    }

    /// A statement with the next name.
    pub(crate) fn number(&mut self, tail: &[u8], info: StatementInfo) -> Statement {
        self.next += 1;
        let name = format!("pw_{}", self.next).into_bytes().into();
        Statement { id: self.next, name, tail: tail.into(), info }
    }

    /// Forgets texts that no client knows any more, once they are many.
    pub fn trim(&mut self, over: usize) {
        if self.by_tail.len() > over {
            self.by_tail.retain(|_, statement| Arc::strong_count(statement) > 1);
        }
    }

    /// Texts kept.
    pub fn len(&self) -> usize {
        self.by_tail.len()
    }

    /// Nothing kept.
    pub fn is_empty(&self) -> bool {
        self.by_tail.is_empty()
    }
}
