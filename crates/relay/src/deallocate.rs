//! `DEALLOCATE name`: clients have names of their own, servers know others.

use wire::craft;

use crate::{
    Client, Context, Server,
    server::{Expect, Knowledge},
};

impl Client {
    /// Whether a frame drops statements while it is not known yet which there are.
    pub(crate) fn drops_in_doubt(
        &self,
        server: &Server,
        kind: u8,
        frame: &[u8],
        context: &mut Context<'_>,
    ) -> bool {
        matches!(kind, b'E' | b'Q')
            && server.names_in_doubt(usize::MAX).next().is_some()
            && match kind {
                b'E' => {
                    self.bound.drops
                        && server.queue.iter().any(|e| matches!(e, Expect::Sync | Expect::Query(_)))
                }
                _ => wire::cstr(wire::read::body(frame)).is_ok_and(|(sql, _)| {
                    let info = context.inspect.statement(sql);
                    info.deallocates || info.discards
                }),
            }
    }

    /// A client's `DEALLOCATE name` works on its own names, which servers do not know: one of that name is made
    /// for it, empty, just before. One that is there by chance goes: ours, or left by a DEALLOCATE that failed. What
    /// a client prepared in SQL stays, it is pinned then.
    pub(crate) fn tell_deallocated(&mut self, server: &mut Server, to_server: &mut Vec<u8>) {
        let Some(name) = self.target.take() else { return };
        let own = self.named.contains_key(&name);
        if !own && self.pin.is_some() && !ours(&name) {
            return;
        }
        craft::close_statement(to_server, &name);
        self.expect(server, Expect::CloseInjected(u64::MAX));
        for (knowledge, _, statement) in server.known.values_mut() {
            if *statement.name == *name {
                *knowledge = Knowledge::Unsure;
            }
        }
        if own {
            craft::parse(to_server, &name, b"\0\0\0");
            self.expect(server, Expect::ParseInjected(None));
            self.target = Some(name);
        }
    }
}

impl Server {
    /// Removes the empty statement that a failed DEALLOCATE left.
    pub(crate) fn clear_litter(&mut self, to_server: &mut Vec<u8>) {
        if let Some(name) = self.litter.take() {
            craft::close_statement(to_server, &name);
            self.push(Expect::CloseInjected(u64::MAX));
        }
    }
}

/// A name of the kind that statements have on servers.
fn ours(name: &[u8]) -> bool {
    name.starts_with(b"pw_")
}

/// Stands on servers for every name that its client never prepared: none of them has it, and PostgreSQL says so.
pub(crate) const NOBODYS: &[u8] = b"pw_?";
