//! What a server answers, and what of it the client sees.

use wire::{HEAD_BYTES, Malformed, craft, read};

use crate::{
    CONTROL_BYTES_MAX, Client, Executed, Fault, PinReason, Server,
    server::{Expect, Knowledge, Own, Work},
};

/// How far `receive` came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// The server is at rest: outside a transaction, owing nothing.
    pub at_rest: bool,
    /// The server connection must close.
    pub fault: Option<Fault>,
}

impl Server {
    /// Answers here what has come to the head of the queue and needs no server.
    pub(crate) fn settle(&mut self, to_client: &mut Vec<u8>) {
        while let Some(Expect::LocalParse { .. } | Expect::LocalClose { .. } | Expect::CopyDone) =
            self.queue.front()
        {
            match self.queue.pop_front() {
                Some(Expect::LocalParse { .. }) => craft::parse_complete(to_client),
                Some(Expect::LocalClose { .. }) => craft::close_complete(to_client),
                _ => {}
            }
        }
    }

    /// Takes bytes from the server. `events` gets one entry for each statement that ended.
    pub fn receive(
        &mut self,
        mut client: Option<&mut Client>,
        input: &[u8],
        to_client: &mut Vec<u8>,
        events: &mut Vec<Executed>,
        now_us: u64,
    ) -> Received {
        let mut at = 0;
        let mut fault = None;
        self.doubtful = false;
        while at < input.len() {
            let rest = &input[at..];
            if self.passing > 0 {
                let n = rest.len().min(self.passing);
                if self.pass_on {
                    to_client.extend_from_slice(&rest[..n]);
                }
                self.passing -= n;
                self.bytes += n as u64;
                at += n;
                continue;
            }
            let head = match wire::head(rest) {
                Err(Malformed) => {
                    fault = Some(Fault::Protocol);
                    break;
                }
                Ok(None) => break,
                Ok(Some(head)) => head,
            };
            if matches!(head.kind, b'D' | b'd' | b'c' | b'V' | b'H' | b'W' | b't' | b'A' | b'N' | b'v') {
                self.passing = head.bytes;
                self.pass_on = !matches!(self.queue.front(), Some(Expect::Injected(_)));
                continue;
            }
            if head.bytes > CONTROL_BYTES_MAX {
                fault = Some(Fault::TooLarge);
                break;
            }
            if rest.len() < head.bytes {
                break;
            }
            let frame = &rest[..head.bytes];
            self.bytes += head.bytes as u64;
            at += head.bytes;
            match self.control(client.as_deref_mut(), head.kind, frame, events, now_us) {
                Ok(true) if head.kind == b'E' => self.pass_error(frame, to_client),
                Ok(true) => to_client.extend_from_slice(frame),
                Ok(false) => {}
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
            self.settle(to_client);
        }
        let at_rest = self.at_rest() && self.passing == 0;
        Received { consumed: at, at_rest, fault }
    }

    /// One control frame; whether the client sees it.
    fn control(
        &mut self,
        client: Option<&mut Client>,
        kind: u8,
        frame: &[u8],
        events: &mut Vec<Executed>,
        now_us: u64,
    ) -> Result<bool, Fault> {
        let body = &frame[HEAD_BYTES..];
        let unexpected = Err(Fault::Unexpected(kind));
        match (kind, self.queue.front()) {
            (b'S', front) => {
                let silent = matches!(front, Some(Expect::Injected(own)) if *own != Own::Renew);
                self.parameter(client, body, silent)?;
                Ok(!silent)
            }
            (b'E', _) => Ok(self.failure(client, body, events, now_us)),
            (b'Z', _) => self.ready(client, body, events, now_us),
            (b'1', Some(Expect::Injected(Own::Trial { id, .. }))) => {
                let id = *id;
                self.confirm(id);
                Ok(false)
            }
            (_, Some(Expect::Injected(_))) => Ok(false),
            (b'1', _) => match self.queue.pop_front() {
                Some(Expect::ParseNamed { statement, .. }) => {
                    self.confirm(statement.id);
                    Ok(true)
                }
                Some(Expect::ParseUnnamed { .. }) => Ok(true),
                Some(Expect::ParseInjected(statement)) => {
                    if let Some(statement) = statement {
                        self.confirm(statement.id);
                    }
                    Ok(false)
                }
                _ => unexpected,
            },
            (b'2', Some(Expect::Bind)) | (b'3', Some(Expect::Close)) => {
                self.queue.pop_front();
                Ok(true)
            }
            (b'3', Some(Expect::CloseInjected(id))) => {
                let id = *id;
                self.queue.pop_front();
                self.closed(id);
                Ok(false)
            }
            (b'T' | b'n', Some(Expect::Describe)) => {
                self.queue.pop_front();
                Ok(true)
            }
            (b'T', Some(Expect::Query(_) | Expect::Execute(_))) => {
                self.begins_well();
                Ok(true)
            }
            (b'G', Some(Expect::Query(_) | Expect::Execute(_))) => {
                self.copy_begins();
                Ok(true)
            }
            (b'C' | b'I' | b's', Some(Expect::Execute(work))) => {
                let work = *work;
                self.copying = false;
                self.queue.pop_front();
                self.finish(work, body, None, events, now_us);
                self.discarded(client, body);
                Ok(true)
            }
            (b'C' | b'I', Some(Expect::Query(work))) => {
                let work = *work;
                self.begins_well();
                self.copy_ends();
                self.finish(work, body, None, events, now_us);
                self.error_seen = true;
                self.discarded(client, body);
                Ok(true)
            }
            _ => unexpected,
        }
    }

    fn confirm(&mut self, id: u64) {
        // What was closed behind it stays in doubt.
        if let Some(entry) = self.known.get_mut(&id)
            && matches!(entry.0, Knowledge::Parsing(_) | Knowledge::Trying)
        {
            entry.0 = Knowledge::Known;
        }
    }

    fn discarded(&mut self, client: Option<&mut Client>, tag: &[u8]) {
        let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
        self.rolled_back = tag == b"ROLLBACK";
        if tag == b"DEALLOCATE"
            && let Some(client) = client
        {
            if let Some(name) = client.target.take() {
                client.named.remove(&name);
            }
        } else if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.forget();
            if let Some(client) = client {
                client.forget();
            }
        }
    }

    /// The end of a request in which the client has reset its settings.
    fn settings_reset(&mut self, client: &mut Client) {
        if self.status != b'I' {
            // Whether they stay reset is not known before the transaction's end.
            client.pin.get_or_insert(PinReason::Set);
        } else if !self.rolled_back {
            self.renew(client);
        }
    }

    fn finish(
        &mut self,
        work: Work,
        tag: &[u8],
        error: Option<[u8; 5]>,
        events: &mut Vec<Executed>,
        now_us: u64,
    ) {
        let rows = read::tag_rows(tag.strip_suffix(b"\0").unwrap_or(tag));
        events.push(Executed {
            slot: work.slot,
            sent_us: self.since_us,
            rows,
            bytes: self.bytes,
            error,
            bind_hash: work.bind_hash,
            offset: work.offset,
            control: work.control,
            rewrite: if error.is_none() { work.rewrite } else { 0 },
        });
        self.since_us = now_us;
        self.bytes = 0;
        self.resetting |= work.resets && error.is_none();
        // A Query of several statements goes on behind this one.
        if work.drops && !matches!(self.queue.front(), Some(Expect::Query(_))) {
            self.dropping = false;
        }
    }

    /// CopyInResponse. Syncs sent ahead of the COPY's end are ignored by PostgreSQL.
    fn copy_begins(&mut self) {
        self.copy_extended = matches!(self.queue.front(), Some(Expect::Execute(_)));
        let end = self.queue.iter().position(|e| matches!(e, Expect::CopyDone));
        self.copy_in = end.is_none();
        self.copying = true;
        let mut index = 0;
        let end = end.unwrap_or(usize::MAX);
        self.queue.retain(|expect| {
            index += 1;
            index > end || !matches!(expect, Expect::Sync)
        });
        if self.copy_extended {
            self.batch_open = !self.queue.iter().any(|e| matches!(e, Expect::Sync));
        }
    }

    /// A statement of a Query has ended. If it was a COPY, its end is not that of the next one.
    fn copy_ends(&mut self) {
        if std::mem::take(&mut self.copying)
            && let Some(end) = self.queue.iter().position(|e| matches!(e, Expect::CopyDone))
        {
            self.queue.remove(end);
        }
    }

    fn failure(
        &mut self,
        mut client: Option<&mut Client>,
        body: &[u8],
        events: &mut Vec<Executed>,
        now_us: u64,
    ) -> bool {
        let mut code = *b"XX000";
        if let Some(found) = wire::error_field(body, b'C').and_then(|c| c.try_into().ok()) {
            code = found;
        }
        let severity = wire::error_field(body, b'V').or_else(|| wire::error_field(body, b'S'));
        if matches!(severity, Some(b"FATAL" | b"PANIC")) {
            self.dead = true;
        }
        (self.copy_in, self.copying) = (false, false);
        self.rolled_back |= !matches!(self.queue.front(), Some(Expect::Injected(_)));
        match self.queue.front() {
            None => return true,
            Some(Expect::Misnamed { name }) if matches!(&code, b"42P05" | b"26000") => {
                self.own_name = Some(name.clone());
            }
            Some(Expect::Injected(own)) => {
                let own = *own;
                if let Own::Trial { id, blamed } = own {
                    self.trial_failed(id, blamed, code);
                }
                let restores = matches!(own, Own::Restore | Own::Renew);
                self.restore_failed |= restores || own == Own::Reset;
                // The client is told why its settings cannot be had.
                return restores || self.dead;
            }
            Some(Expect::Query(work)) => {
                let work = *work;
                if self.falls_back(code) {
                    return false;
                }
                if let Some(client) = client
                    && work.drops
                {
                    self.litter = client.target.take();
                }
                self.suspect = 0;
                self.finish(work, b"", Some(code), events, now_us);
                self.error_seen = true;
                return true;
            }
            Some(Expect::Sync) => return true,
            Some(_) => {}
        }
        let ends = |expect: &Expect| matches!(expect, Expect::Sync | Expect::Injected(_));
        let sync = self.queue.iter().position(ends);
        self.failed |= sync.is_none();
        let work = self.queue.iter().take(sync.unwrap_or(usize::MAX)).find_map(|expect| match expect {
            Expect::Execute(work) => Some(*work),
            _ => None,
        });
        self.finish(work.unwrap_or_default(), b"", Some(code), events, now_us);
        let behind = self.queue.split_off(sync.unwrap_or(self.queue.len()));
        // Backwards: a name closed and prepared again is what it was before.
        for expect in std::mem::replace(&mut self.queue, behind).into_iter().rev() {
            self.undo(expect, client.as_deref_mut());
        }
        true
    }

    fn ready(
        &mut self,
        mut client: Option<&mut Client>,
        body: &[u8],
        events: &mut Vec<Executed>,
        now_us: u64,
    ) -> Result<bool, Fault> {
        let Some(expect) = self.queue.pop_front() else { return Err(Fault::Unexpected(b'Z')) };
        self.cancelled_by = None;
        self.status = *body.first().ok_or(Fault::Protocol)?;
        if let Some(client) = client.as_deref_mut()
            && self.status == b'I'
        {
            client.set_local = false;
        }
        let reset = matches!(expect, Expect::Sync | Expect::Query(_)) && std::mem::take(&mut self.resetting);
        if reset || matches!(expect, Expect::Query(work) if work.drops) {
            self.dropping = false;
        }
        if reset && let Some(client) = client.as_deref_mut() {
            self.settings_reset(client);
        }
        match expect {
            Expect::Sync => Ok(true),
            Expect::Query(work) => {
                if let Some(fallback) = self.fallback.take_if(|fallback| fallback.failed) {
                    self.suspect = fallback.rewrite;
                    self.resend.extend_from_slice(&fallback.frame);
                    self.queue.push_front(Expect::Query(Work { rewrite: 0, ..work }));
                    self.since_us = now_us;
                    return Ok(false);
                }
                if !self.error_seen {
                    self.finish(work, b"", None, events, now_us);
                }
                self.error_seen = false;
                Ok(true)
            }
            Expect::Injected(own) => {
                self.since_us = now_us;
                if self.restore_failed {
                    return Err(Fault::Restore);
                }
                match own {
                    Own::Restore | Own::Renew => self.restored(client),
                    Own::Reset => {
                        self.forget();
                        self.wanted.clear();
                        self.differs.clear();
                    }
                    Own::Query | Own::Trial { .. } => {}
                }
                Ok(false)
            }
            _ => Err(Fault::Unexpected(b'Z')),
        }
    }
}
