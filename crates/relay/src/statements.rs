//! Texts of named prepared statements, each once for a pool.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::StatementInfo;

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
}

impl Statements {
    /// The statement with this Parse tail, made when it is new.
    pub fn intern(&mut self, tail: &[u8], info: impl FnOnce() -> StatementInfo) -> Arc<Statement> {
        if let Some(known) = self.by_tail.get(tail) {
            return Arc::clone(known);
        }
        self.next += 1;
        let statement = Arc::new(Statement {
            id: self.next,
            name: format!("pw_{}", self.next).into_bytes().into(),
            tail: tail.into(),
            info: info(),
        });
        self.by_tail.insert(tail.into(), Arc::clone(&statement));
        statement
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
