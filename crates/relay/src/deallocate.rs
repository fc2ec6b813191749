//! `DEALLOCATE name`: clients have names of their own, servers know others.

use wire::craft;

use crate::{Client, Context, Server, StatementInfo, server::Expect};

impl Client {
    /// A client's `DEALLOCATE name` works on its own names, which servers do not know: one of that name is made
    /// for it, empty, just before. Gives another text when the name is one of ours.
    pub(crate) fn tell_deallocated(
        &mut self,
        server: &mut Server,
        to_server: &mut Vec<u8>,
    ) -> Option<Vec<u8>> {
        let name = self.target.take()?;
        if !self.named.contains_key(&name) {
            return ours(&name).then(|| deallocate_foreign(&name));
        }
        craft::close_statement(to_server, &name);
        self.expect(server, Expect::CloseInjected(u64::MAX));
        craft::parse(to_server, &name, b"\0\0\0");
        self.expect(server, Expect::ParseInjected(None));
        if ours(&name) {
            server.known.retain(|_, (_, _, statement)| *statement.name != *name);
        }
        self.target = Some(name);
        None
    }

    /// Notes what a statement that is being prepared deallocates. Gives another tail when the client has no such
    /// statement and the name is one of ours.
    pub(crate) fn note_deallocator(
        &mut self,
        name: &[u8],
        sql: &[u8],
        types: &[u8],
        info: StatementInfo,
        context: &mut Context<'_>,
    ) -> Option<Vec<u8>> {
        if !info.deallocates {
            if !self.deallocators.is_empty() {
                self.deallocators.remove(name);
            }
            return None;
        }
        let target = context.inspect.deallocated(sql)?;
        let altered = (ours(&target) && !self.named.contains_key(target.as_slice()))
            .then(|| [&deallocate_foreign(&target)[..], b"\0", types].concat());
        self.deallocators.insert(name.into(), target.into());
        altered
    }
}

/// A name of the kind that statements have on servers.
fn ours(name: &[u8]) -> bool {
    name.starts_with(b"pw_")
}

/// DEALLOCATE of a name that the client never prepared.
fn deallocate_foreign(name: &[u8]) -> Vec<u8> {
    let mut sql = b"DEALLOCATE \"".to_vec();
    for byte in foreign(name) {
        if byte == b'"' {
            sql.push(byte);
        }
        sql.push(byte);
    }
    sql.push(b'"');
    sql
}

/// A name the client never prepared: PostgreSQL shall say so, and shall not find ours by it.
pub(crate) fn foreign(name: &[u8]) -> Vec<u8> {
    let mut name = name.to_vec();
    if ours(&name) {
        name.push(b'?');
    }
    name
}
