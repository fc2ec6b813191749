//! One frame of a client, whole, on its way to a server.

use std::sync::Arc;

use wire::{Malformed, craft, cstr, read::body};

use crate::{
    Client, Context, Fault, LOCAL_REPLIES_MAX, PinReason, Place, Server, StatementInfo,
    client::hash,
    deallocate::NOBODYS,
    rewriting::Substitute,
    server::{Expect, Work},
    values::bound_integer,
};

impl Client {
    pub(crate) fn forward(
        &mut self,
        server: &mut Server,
        kind: u8,
        frame: &[u8],
        missing: usize,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if server.queue.is_empty() {
            server.since_us = context.now_us;
            server.bytes = 0;
        }
        if server.litter.is_some() && !server.failed {
            server.clear_litter(to_server);
        }
        if context.rewriting.is_some() {
            server.quiet = server.rests_but_for_ours();
            if server.quiet && !server.wanted.is_empty() {
                server.try_wanted(context.per_server, to_server);
            }
        }
        if !matches!(kind, b'S' | b'Q' | b'F' | b'H' | b'c' | b'f' | b'd') {
            server.batch_open = true;
        }
        match kind {
            b'Q' if missing > 0 => self.query_begun(server, frame, to_server, context),
            b'Q' => self.query(server, frame, to_server, context)?,
            b'P' => self.parse(server, frame, to_server, context)?,
            b'B' => self.bind(server, frame, missing, to_server, context)?,
            b'D' | b'C' => self.named_object(server, kind, frame, to_server, context)?,
            b'E' => {
                if self.bound.drops && !server.failed {
                    self.target = self.bound_target.clone();
                    self.tell_deallocated(server, to_server);
                    server.dropping = true;
                }
                to_server.extend_from_slice(frame);
                self.expect(server, Expect::Execute(self.bound));
                if server.dropping {
                    // Its answer is waited for.
                    craft::flush(to_server);
                }
            }
            b'F' => {
                self.judge_function(frame);
                to_server.extend_from_slice(frame);
                self.expect(server, Expect::Query(Work::default()));
            }
            b'S' => {
                to_server.extend_from_slice(frame);
                if server.copy_in {
                    // PostgreSQL ignores Sync during COPY (copyfromparse.c).
                    return Ok(());
                }
                self.expect(server, Expect::Sync);
                server.close_segment();
                // Settings are restored behind it.
                server.dropping |= server.resetting;
            }
            b'H' => {
                to_server.extend_from_slice(frame);
                self.flush = true;
            }
            b'c' | b'f' => {
                to_server.extend_from_slice(frame);
                self.expect(server, Expect::CopyDone);
                server.copy_in = false;
            }
            _ => return Err(Fault::Protocol),
        }
        Ok(())
    }

    /// Functions that leave something in the session, by their fixed OIDs (pg_proc.dat).
    fn judge_function(&mut self, frame: &[u8]) {
        let pin = match body(frame).first_chunk().map(|oid| u32::from_be_bytes(*oid)) {
            Some(2_078) => Some(PinReason::SetConfig),
            Some(2_880..=2_883 | 2_886..=2_889) => Some(PinReason::AdvisoryLock),
            _ => None,
        };
        self.judge(StatementInfo { pin, ..StatementInfo::default() });
    }

    pub(crate) fn expect(&mut self, server: &mut Server, expect: Expect) {
        if server.failed && !matches!(expect, Expect::Sync) {
            server.undo(expect, Some(self));
        } else {
            server.push(expect);
        }
    }

    fn judge(&mut self, info: StatementInfo) {
        if self.pin.is_none() {
            self.pin = info.pin;
        }
        self.set_local |= info.set_local;
    }

    fn query(
        &mut self,
        server: &mut Server,
        frame: &[u8],
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (sql, _) = cstr(body(frame)).map_err(|Malformed| Fault::Protocol)?;
        let info = context.inspect.statement(sql);
        self.judge(info);
        let mut rewrite = 0;
        let drops = info.deallocates || info.discards || info.resets;
        if info.deallocates {
            self.target = context.inspect.deallocated(sql).map(Vec::into_boxed_slice);
            self.tell_deallocated(server, to_server);
            to_server.extend_from_slice(frame);
        } else {
            rewrite = self.rewrite_query(server, frame, info, to_server, context);
            if rewrite == 0 {
                to_server.extend_from_slice(frame);
            }
        }
        self.unnamed_substitute = None;
        self.unnamed_serial = 0;
        server.unnamed = 0;
        let offset = if let Place::Literal(value) = info.offset { Some(value) } else { None };
        let work = Work {
            slot: info.slot,
            exempt: info.exempt,
            control: info.control,
            bind_hash: hash(sql),
            offset,
            rewrite,
            drops,
            resets: info.resets,
        };
        server.dropping = drops && !server.failed;
        self.expect(server, Expect::Query(work));
        Ok(())
    }

    /// A Query too long to be held: it is judged by its beginning, and what it does to the session is not known.
    fn query_begun(
        &mut self,
        server: &mut Server,
        frame: &[u8],
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) {
        let info = context.inspect.statement(body(frame));
        self.judge(StatementInfo { pin: Some(PinReason::LongText), ..info });
        to_server.extend_from_slice(frame);
        self.unnamed_substitute = None;
        self.unnamed_serial = 0;
        server.unnamed = 0;
        let bind_hash = hash(body(frame));
        let work = Work { slot: info.slot, exempt: info.exempt, bind_hash, ..Work::default() };
        self.expect(server, Expect::Query(work));
    }

    fn parse(
        &mut self,
        server: &mut Server,
        frame: &[u8],
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (name, tail) = cstr(body(frame)).map_err(|Malformed| Fault::Protocol)?;
        let (sql, _) = cstr(tail).map_err(|Malformed| Fault::Protocol)?;
        if name.is_empty() {
            let info = context.inspect.statement(sql);
            self.judge(info);
            let mut substitute = None;
            if server.cannot_refuse() {
                substitute = self.substitute_of_text(server, tail, info, to_server, context);
            }
            if substitute.is_none() {
                to_server.extend_from_slice(frame);
            }
            if server.failed {
                return Ok(());
            }
            self.parses += 1;
            self.unnamed.clear();
            self.unnamed.extend_from_slice(tail);
            self.unnamed_info = info;
            self.unnamed_serial = (self.number << 32) | (self.parses & 0xffff_ffff);
            self.unnamed_substitute = substitute;
            if self.unnamed_substitute.is_some() {
                self.expect(server, Expect::LocalParse { name: Box::default() });
                return Ok(());
            }
            server.unnamed = self.unnamed_serial;
            self.expect(server, Expect::ParseUnnamed { serial: self.unnamed_serial });
            return Ok(());
        }
        let statement = context.statements.intern(tail, || context.inspect.statement(sql));
        self.judge(statement.info);
        if server.failed {
            return Ok(());
        }
        if self.named.contains_key(name) {
            // PostgreSQL itself says 42P05: the name is there already.
            server.ensure(&statement, usize::MAX, to_server);
            craft::parse(to_server, &statement.name, &statement.tail);
            self.expect(server, Expect::Misnamed { name: name.into() });
            return Ok(());
        }
        if self.named.len() >= context.per_client {
            return Err(Fault::TooLarge);
        }
        self.named.insert(name.into(), Arc::clone(&statement));
        let known = server.known.get(&statement.id).map(|entry| entry.0);
        let sure = server.cannot_refuse();
        if known.is_none() && sure && self.substitute_of(server, &statement, to_server, context).is_some() {
            self.expect(server, Expect::LocalParse { name: name.into() });
        } else if known.is_none() || !sure {
            if known.is_none() {
                server.evict(context.per_server, to_server);
            } else {
                craft::close_statement(to_server, &statement.name);
                self.expect(server, Expect::CloseInjected(u64::MAX));
            }
            craft::parse(to_server, &statement.name, &statement.tail);
            server.learn(&statement);
            self.expect(server, Expect::ParseNamed { statement, name: name.into() });
        } else {
            server.ensure(&statement, context.per_server, to_server);
            self.expect(server, Expect::LocalParse { name: name.into() });
        }
        Ok(())
    }

    fn bind(
        &mut self,
        server: &mut Server,
        frame: &[u8],
        missing: usize,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let malformed = |Malformed| Fault::Protocol;
        let (portal, rest) = cstr(body(frame)).map_err(malformed)?;
        let (name, tail) = cstr(rest).map_err(malformed)?;
        let mut rewrite = 0;
        let info = if name.is_empty() {
            if let Some(substitute) = self.substitute_of_unnamed(server, to_server, context) {
                craft::bind(to_server, portal, &substitute.statement.name, tail, missing);
                rewrite = substitute.rewrite;
            } else {
                self.tell_unnamed(server, to_server);
                to_server.extend_from_slice(frame);
            }
            self.unnamed_info
        } else if let Some(statement) = self.named.get(name).cloned() {
            self.judge(statement.info);
            if let Some(substitute) = self.substitute_of(server, &statement, to_server, context) {
                craft::bind(to_server, portal, &substitute.statement.name, tail, missing);
                rewrite = substitute.rewrite;
            } else {
                server.ensure(&statement, context.per_server, to_server);
                craft::bind(to_server, portal, &statement.name, tail, missing);
            }
            statement.info
        } else {
            craft::bind(to_server, portal, NOBODYS, tail, missing);
            self.bound = Work::default();
            self.expect(server, Expect::Misnamed { name: name.into() });
            return Ok(());
        };
        let offset = match info.offset {
            Place::Absent => None,
            Place::Literal(value) => Some(value),
            Place::Param(n) => bound_integer(tail, n),
        };
        self.bound = Work {
            slot: info.slot,
            exempt: info.exempt,
            control: info.control,
            bind_hash: hash(tail),
            offset,
            rewrite,
            drops: info.deallocates || info.discards || info.resets,
            resets: info.resets,
        };
        self.bound_target = None;
        if info.deallocates {
            let prepared =
                if name.is_empty() { Some(&*self.unnamed) } else { self.named.get(name).map(|s| &*s.tail) };
            let target =
                prepared.and_then(|p| cstr(p).ok()).and_then(|(sql, _)| context.inspect.deallocated(sql));
            self.bound_target = target.map(Vec::into_boxed_slice);
        }
        self.expect(server, Expect::Bind);
        Ok(())
    }

    /// What to use in place of the unnamed statement, if it was replaced at Parse and still may be.
    fn substitute_of_unnamed(
        &mut self,
        server: &mut Server,
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Option<Substitute> {
        self.unnamed_substitute.as_ref()?;
        self.unnamed_substitute =
            self.substitute_of_text(server, &self.unnamed, self.unnamed_info, to_server, context);
        self.unnamed_substitute.clone()
    }

    /// Tells the server the client's unnamed statement when it has another.
    fn tell_unnamed(&mut self, server: &mut Server, to_server: &mut Vec<u8>) {
        if self.unnamed_serial != 0 && server.unnamed != self.unnamed_serial && !server.failed {
            craft::parse(to_server, b"", &self.unnamed);
            server.unnamed = self.unnamed_serial;
            self.expect(server, Expect::ParseInjected(None));
        } else if self.unnamed_serial == 0 && server.unnamed != 0 && !server.failed {
            // Another client's unnamed statement must not answer.
            craft::close_statement(to_server, b"");
            server.unnamed = 0;
            self.expect(server, Expect::CloseInjected(u64::MAX));
        }
    }

    fn named_object(
        &mut self,
        server: &mut Server,
        kind: u8,
        frame: &[u8],
        to_server: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (what, rest) = body(frame).split_first().ok_or(Fault::Protocol)?;
        let (name, _) = cstr(rest).map_err(|Malformed| Fault::Protocol)?;
        let owed = if kind == b'D' { Expect::Describe } else { Expect::Close };
        if *what != b'S' {
            to_server.extend_from_slice(frame);
        } else if name.is_empty() && kind == b'D' {
            if let Some(substitute) = self.substitute_of_unnamed(server, to_server, context) {
                craft::describe_statement(to_server, &substitute.statement.name);
            } else {
                self.tell_unnamed(server, to_server);
                to_server.extend_from_slice(frame);
            }
        } else if name.is_empty() {
            self.unnamed_substitute = None;
            self.unnamed_serial = 0;
            server.unnamed = 0;
            to_server.extend_from_slice(frame);
        } else if kind == b'C' {
            if server.queue.len() > LOCAL_REPLIES_MAX {
                return Err(Fault::TooLarge);
            }
            if !server.failed {
                let statement = self.named.remove(name);
                self.expect(server, Expect::LocalClose { name: name.into(), statement });
            }
            return Ok(());
        } else if let Some(statement) = self.named.get(name).cloned() {
            if let Some(substitute) = self.substitute_of(server, &statement, to_server, context) {
                craft::describe_statement(to_server, &substitute.statement.name);
            } else {
                server.ensure(&statement, context.per_server, to_server);
                craft::describe_statement(to_server, &statement.name);
            }
        } else {
            craft::describe_statement(to_server, NOBODYS);
            self.expect(server, Expect::Misnamed { name: name.into() });
            return Ok(());
        }
        self.expect(server, owed);
        Ok(())
    }
}
