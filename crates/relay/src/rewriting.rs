//! Live rewrites: a SELECT sent in place of the client's.
//!
//! The client must never see that a replacement is wrong. So a replacement is tried first: prepared on a server
//! that is at rest, with a Sync of its own, all its answers swallowed. Only where the server is known to have
//! it, it is used; everywhere else the client's own text goes, as ever. A Query with literals cannot be tried as
//! it is; its form with parameters is, and should the text fail before its first row nevertheless, the client's
//! own is sent after it.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use wire::craft;

use crate::{
    Client, Context, Server, Statement, StatementInfo, Statements,
    server::{Expect, Knowledge, Own},
};

/// Texts that servers are told in place of clients'.
const TEXTS_MAX: usize = 1_024;
/// The same with literals: beyond, a text is not worth its trial on each server.
const LITERAL_TEXTS_MAX: usize = 64;
/// Statements whose substitute is remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What is to be sent in place of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replacement {
    /// The rewrite's number, not 0.
    pub rewrite: u32,
    /// The text.
    pub text: Vec<u8>,
    /// The text with parameters for its literals; `None` when it has no literals.
    pub trial: Option<Vec<u8>>,
}

/// The rewrites of a pool.
pub trait Rewriting {
    /// What to send for `sql`. `types` are the parameter types that Parse declares: a count of two bytes and
    /// four bytes each, as on the wire.
    fn replacement(&mut self, sql: &[u8], info: &StatementInfo, types: &[u8]) -> Option<Replacement>;
    /// Whether a rewrite is still to be used.
    fn in_force(&self, rewrite: u32) -> bool;
}

/// A replacement as servers know it.
#[derive(Clone, Debug)]
pub(crate) struct Substitute {
    pub rewrite: u32,
    pub statement: Arc<Statement>,
    /// Must be known first: a failure of it is the rewrite's, not that of a client's literal.
    pub trial: Option<Arc<Statement>>,
}

/// Substitutes of a pool.
#[derive(Default)]
pub(crate) struct Substitutes {
    /// By Parse tail.
    by_tail: HashMap<Box<[u8]>, Arc<Statement>, FixedState>,
    /// How many of them carry literals.
    literals: usize,
    /// By the id of the client's named statement.
    by_original: HashMap<u64, Option<Substitute>, FixedState>,
}

/// A rewritten Query under way.
#[derive(Debug)]
pub(crate) struct Fallback {
    /// The client's own frame.
    pub frame: Vec<u8>,
    pub rewrite: u32,
    /// The replacement failed: the frame goes at ReadyForQuery.
    pub failed: bool,
}

/// Errors that a text itself is to blame for: syntax and names, features, constants that do not fit.
fn of_analysis(code: [u8; 5]) -> bool {
    matches!(&code[..2], b"42" | b"0A" | b"22")
}

impl Statements {
    /// Looks all substitutes up again: the rewrites changed.
    pub fn forget_substitutes(&mut self) {
        self.substitutes = Substitutes::default();
    }

    fn substitute_text(&mut self, text: &[u8], types: &[u8], info: StatementInfo) -> Option<Arc<Statement>> {
        let tail = [text, b"\0", types].concat();
        if let Some(known) = self.substitutes.by_tail.get(tail.as_slice()) {
            return Some(Arc::clone(known));
        }
        if self.substitutes.by_tail.len() >= TEXTS_MAX {
            return None;
        }
        let statement = Arc::new(self.number(&tail, info));
        self.substitutes.by_tail.insert(tail.into(), Arc::clone(&statement));
        Some(statement)
    }

    fn substitute(&mut self, found: Replacement, info: StatementInfo, types: &[u8]) -> Option<Substitute> {
        // Without declared types: PostgreSQL infers them as it does for literals of unknown type.
        let trial = match &found.trial {
            Some(trial) => Some(self.substitute_text(trial, b"\0\0", info)?),
            None => None,
        };
        let tail = [&found.text, &b"\0"[..], types].concat();
        if trial.is_some() && !self.substitutes.by_tail.contains_key(tail.as_slice()) {
            self.substitutes.literals += 1;
            if self.substitutes.literals > LITERAL_TEXTS_MAX {
                return None;
            }
        }
        let statement = self.substitute_text(&found.text, types, info)?;
        Some(Substitute { rewrite: found.rewrite, statement, trial })
    }
}

impl Client {
    /// Only with the session state for which the replacement was proven.
    fn may_be_rewritten(&self) -> bool {
        self.pin.is_none() && !self.set_local && self.parameters.get(b"search_path").is_none()
    }

    /// The substitute of a Parse tail, if this server may be sent it now.
    pub(crate) fn substitute_of_text(
        &self,
        server: &mut Server,
        tail: &[u8],
        info: StatementInfo,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Option<Substitute> {
        let rewriting = context.rewriting.as_deref_mut()?;
        if !self.may_be_rewritten() {
            return None;
        }
        let (sql, types) = wire::cstr(tail).ok()?;
        let found = rewriting.replacement(sql, &info, types)?;
        let substitute = context.statements.substitute(found, info, types)?;
        server.accepts(&substitute, context.per_server, to_server).then_some(substitute)
    }

    /// The substitute of a named statement, if this server may be sent it now.
    pub(crate) fn substitute_of(
        &self,
        server: &mut Server,
        statement: &Statement,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Option<Substitute> {
        let rewriting = context.rewriting.as_deref_mut()?;
        if !self.may_be_rewritten() {
            return None;
        }
        let statements = &mut *context.statements;
        let substitute = match statements.substitutes.by_original.get(&statement.id) {
            Some(known) => known.clone()?,
            None => {
                let (sql, types) = wire::cstr(&statement.tail).ok()?;
                let found = rewriting.replacement(sql, &statement.info, types);
                let substitute = found.and_then(|f| statements.substitute(f, statement.info, types));
                if statements.substitutes.by_original.len() >= REMEMBERED_MAX {
                    statements.substitutes.by_original.clear();
                }
                statements.substitutes.by_original.insert(statement.id, substitute.clone());
                substitute?
            }
        };
        if !rewriting.in_force(substitute.rewrite) {
            return None;
        }
        server.accepts(&substitute, context.per_server, to_server).then_some(substitute)
    }

    /// Sends the replacement of a Query; false when the client's own is to be sent. Outside a transaction only:
    /// inside, a failure would end the client's transaction.
    pub(crate) fn rewrite_query(
        &self,
        server: &mut Server,
        frame: &[u8],
        info: StatementInfo,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> u32 {
        let Some(rewriting) = context.rewriting.as_deref_mut() else { return 0 };
        if !self.may_be_rewritten() {
            return 0;
        }
        let Ok((sql, _)) = wire::cstr(wire::read::body(frame)) else { return 0 };
        let Some(found) = rewriting.replacement(sql, &info, b"\0\0") else { return 0 };
        let trial = found.trial.as_ref().unwrap_or(&found.text);
        let Some(trial) = context.statements.substitute_text(trial, b"\0\0", info) else { return 0 };
        if !server.has(&trial) {
            server.want(&trial, found.rewrite, context.per_server, to_server);
            return 0;
        }
        if !server.quiet {
            return 0;
        }
        craft::query(to_server, &found.text);
        server.fallback = Some(Fallback { frame: frame.to_vec(), rewrite: found.rewrite, failed: false });
        found.rewrite
    }
}

impl Server {
    /// It has told us that it knows `statement`.
    fn has(&self, statement: &Statement) -> bool {
        self.known.get(&statement.id).is_some_and(|entry| entry.0 == Knowledge::Known)
    }

    /// Whether the substitute may be used now; if it is not known yet, it is asked for.
    fn accepts(&mut self, substitute: &Substitute, limit: usize, to_server: &mut Vec<u8>) -> bool {
        if self.failed {
            return false;
        }
        if let Some(trial) = &substitute.trial
            && !self.has(trial)
        {
            self.want(trial, substitute.rewrite, limit, to_server);
            return false;
        }
        if !self.has(&substitute.statement) {
            let blamed = if substitute.trial.is_none() { substitute.rewrite } else { 0 };
            self.want(&substitute.statement, blamed, limit, to_server);
            return false;
        }
        self.tick += 1;
        if let Some(entry) = self.known.get_mut(&substitute.statement.id) {
            entry.1 = self.tick;
        }
        true
    }

    /// Tries a replacement now if the server is at rest, else when it is.
    fn want(&mut self, statement: &Arc<Statement>, blamed: u32, limit: usize, to_server: &mut Vec<u8>) {
        if self.known.contains_key(&statement.id) {
            return;
        }
        if self.quiet {
            self.try_out(statement, blamed, limit, to_server);
        } else if !self.wanted.iter().any(|(known, _)| known.id == statement.id) {
            self.wanted.push((Arc::clone(statement), blamed));
        }
    }

    /// Tries what was asked for meanwhile. The server is at rest.
    pub(crate) fn try_wanted(&mut self, limit: usize, to_server: &mut Vec<u8>) {
        for (statement, blamed) in std::mem::take(&mut self.wanted) {
            if !self.known.contains_key(&statement.id) {
                self.try_out(&statement, blamed, limit, to_server);
            }
        }
    }

    fn try_out(&mut self, statement: &Arc<Statement>, blamed: u32, limit: usize, to_server: &mut Vec<u8>) {
        self.evict(limit, to_server);
        craft::parse(to_server, &statement.name, &statement.tail);
        craft::sync(to_server);
        self.tick += 1;
        self.known.insert(statement.id, (Knowledge::Trying, self.tick, Arc::clone(statement)));
        self.queue.push_back(Expect::Injected(Own::Trial { id: statement.id, blamed }));
    }

    /// The trial at the head of the queue failed.
    pub(crate) fn trial_failed(&mut self, id: u64, blamed: u32, code: [u8; 5]) {
        if !of_analysis(code) {
            // Cancelled, or no memory: another time.
            self.known.remove(&id);
            return;
        }
        if let Some(entry) = self.known.get_mut(&id) {
            entry.0 = Knowledge::Refused;
        }
        if blamed != 0 {
            self.failed_rewrites.push(blamed);
        }
    }

    /// Nothing may be sent to it before the next answer: a rewritten Query is under way, prepared statements are
    /// being dropped, or it is not known yet whether the next frame's statement is there.
    pub fn holds_back(&self) -> bool {
        self.fallback.is_some() || self.dropping || self.doubtful
    }

    /// An error came for a rewritten Query before any of its answer: its own will be sent.
    pub(crate) fn falls_back(&mut self, code: [u8; 5]) -> bool {
        match self.fallback.as_mut() {
            Some(fallback) if of_analysis(code) => {
                fallback.failed = true;
                true
            }
            _ => {
                self.fallback = None;
                false
            }
        }
    }

    /// The answer of a Query begins well.
    pub(crate) fn begins_well(&mut self) {
        self.fallback = None;
        if self.suspect != 0 {
            // The client's own text succeeds where the replacement failed.
            self.failed_rewrites.push(std::mem::take(&mut self.suspect));
        }
    }
}
