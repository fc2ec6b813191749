//! What a server knows: its prepared statements, told, confirmed, evicted.

use std::sync::Arc;

use crate::{
    Client, Server, Statement,
    server::{Expect, Knowledge},
};

/// Serial of an unnamed statement when nobody knows whose it is.
pub(crate) const UNKNOWN: u64 = u64::MAX;
/// Tick of a statement whose Close is under way.
const CLOSING: u64 = u64::MAX;

impl Server {
    /// The server will not do what `expect` stands for.
    pub(crate) fn undo(&mut self, expect: Expect, client: Option<&mut Client>) {
        match expect {
            Expect::ParseNamed { statement, name } => {
                self.unsure(&statement);
                if let Some(client) = client {
                    client.named.remove(&name);
                }
            }
            Expect::LocalParse { name } => {
                if let Some(client) = client {
                    client.named.remove(&name);
                }
            }
            Expect::LocalClose { name, statement } => {
                if let (Some(client), Some(statement)) = (client, statement) {
                    client.named.insert(name, statement);
                }
            }
            Expect::ParseUnnamed { serial } => {
                self.unnamed = UNKNOWN;
                // Unless a later batch has prepared another already.
                if let Some(client) = client
                    && client.unnamed_serial == serial
                {
                    client.unnamed_serial = 0;
                    client.unnamed_substitute = None;
                }
            }
            Expect::ParseInjected(None) | Expect::Close => self.unnamed = UNKNOWN,
            Expect::Query(work) => {
                self.unnamed = UNKNOWN;
                self.dropping &= !work.drops;
            }
            Expect::ParseInjected(Some(statement)) => self.unsure(&statement),
            Expect::CloseInjected(id) => {
                self.unnamed = UNKNOWN;
                if let Some(entry) = self.known.get_mut(&id) {
                    (entry.0, entry.1) = (Knowledge::Unsure, 0);
                }
            }
            Expect::Execute(work) if work.drops => {
                self.dropping = false;
                if let Some(client) = client {
                    self.litter = client.target.take();
                }
            }
            _ => {}
        }
    }

    /// A statement was closed: it is gone, unless it has been told anew behind that.
    pub(crate) fn closed(&mut self, id: u64) {
        let told = self.queue.iter().any(|expect| match expect {
            Expect::ParseNamed { statement, .. } | Expect::ParseInjected(Some(statement)) => {
                statement.id == id
            }
            _ => false,
        });
        if !told && self.known.get(&id).is_some_and(|entry| entry.0 == Knowledge::Unsure) {
            self.known.remove(&id);
        }
    }

    /// No transaction is open that may be aborted, so far as is known: a Parse may be answered here.
    pub(crate) fn cannot_refuse(&self) -> bool {
        self.status == b'I' && !self.queue.iter().any(|e| matches!(e, Expect::Sync | Expect::Query(_)))
    }

    /// Whether a frame uses a statement's name whose Parse or Close went with an earlier batch and has no answer
    /// yet: it may fail, and then the name means something else.
    pub(crate) fn name_in_doubt(&self, kind: u8, frame: &[u8]) -> bool {
        let Some(end) = self.queue.iter().rposition(|e| matches!(e, Expect::Sync | Expect::Query(_))) else {
            return false;
        };
        let body = wire::read::body(frame);
        let used = match kind {
            b'P' => wire::cstr(body),
            b'B' => wire::cstr(body).and_then(|(_, rest)| wire::cstr(rest)),
            b'D' | b'C' => wire::cstr(body.strip_prefix(b"S").unwrap_or(b"\0")),
            _ => return false,
        };
        let Ok((used, _)) = used else { return false };
        !used.is_empty() && self.names_in_doubt(end).any(|name| *name == *used)
    }

    /// Names given or taken by the first `end` of what is owed.
    pub(crate) fn names_in_doubt(&self, end: usize) -> impl Iterator<Item = &[u8]> {
        self.queue.iter().take(end).filter_map(|expect| match expect {
            Expect::ParseNamed { name, .. }
            | Expect::LocalParse { name }
            | Expect::LocalClose { name, .. } => Some(&**name),
            _ => None,
        })
    }

    pub(crate) fn unsure(&mut self, statement: &Arc<Statement>) {
        if let Some(entry) = self.known.get_mut(&statement.id) {
            entry.0 = Knowledge::Unsure;
        }
    }

    /// Makes sure that the server has (or is being told) `statement`; evicts the longest unused one
    /// beyond `limit` statements.
    pub(crate) fn ensure(&mut self, statement: &Arc<Statement>, limit: usize, to_server: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        self.tick += 1;
        let (tick, segment) = (self.tick, self.segment);
        let mut unsure = false;
        if let Some(entry) = self.known.get_mut(&statement.id) {
            entry.1 = tick;
            match entry.0 {
                Knowledge::Known => return,
                Knowledge::Parsing(sent) if sent == segment => return,
                _ => unsure = true,
            }
        } else {
            self.evict(limit, to_server);
        }
        if unsure {
            wire::craft::close_statement(to_server, &statement.name);
            self.queue.push_back(Expect::CloseInjected(u64::MAX));
        }
        wire::craft::parse(to_server, &statement.name, &statement.tail);
        self.queue.push_back(Expect::ParseInjected(Some(Arc::clone(statement))));
        self.learn(statement);
    }

    /// The server is being told `statement`.
    pub(crate) fn learn(&mut self, statement: &Arc<Statement>) {
        self.tick += 1;
        self.known.insert(statement.id, (Knowledge::Parsing(self.segment), self.tick, Arc::clone(statement)));
    }

    pub(crate) fn evict(&mut self, limit: usize, to_server: &mut Vec<u8>) {
        if self.known.len() < limit.max(1) {
            return;
        }
        // Only what the server has for certain and no message under way can mean: at rest.
        if !self.queue.iter().all(|e| matches!(e, Expect::Injected(_) | Expect::CloseInjected(_))) {
            return;
        }
        // A batch may have brought more than fit.
        for _ in limit.max(1)..=self.known.len() {
            let oldest = self
                .known
                .iter()
                .filter(|(_, (knowledge, tick, _))| {
                    matches!(knowledge, Knowledge::Known | Knowledge::Unsure) && *tick != CLOSING
                })
                .min_by_key(|(_, (_, tick, _))| *tick)
                .map(|(id, (_, _, statement))| (*id, Arc::clone(statement)));
            let Some((id, statement)) = oldest else { return };
            wire::craft::close_statement(to_server, &statement.name);
            self.queue.push_back(Expect::CloseInjected(id));
            if let Some(entry) = self.known.get_mut(&id) {
                (entry.0, entry.1) = (Knowledge::Unsure, CLOSING);
            }
        }
    }
}
