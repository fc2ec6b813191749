//! A PostgreSQL in miniature: the protocol's rules for statements, transactions, errors and COPY, over a handful of
//! statements. It is what clients would talk to without a pooler.

use std::collections::BTreeMap;

use wire::craft::{self, ErrorReply};

/// One session.
pub struct Postgres {
    /// Prepared statements by name; the unnamed one under "".
    pub prepared: BTreeMap<Vec<u8>, Vec<u8>>,
    portal: Option<Vec<u8>>,
    /// `I`, `T` or `E`.
    pub status: u8,
    skipping: bool,
    /// In COPY, by the extended protocol or not.
    copying: Option<bool>,
    zone: Vec<u8>,
    input: Vec<u8>,
    /// What it has said and nobody has read.
    pub output: Vec<u8>,
    /// Statements run that are to leave a trace, in order.
    pub done: Vec<Vec<u8>>,
}

type Fault = (&'static str, String);

impl Postgres {
    pub fn new() -> Self {
        Self {
            prepared: BTreeMap::new(),
            portal: None,
            status: b'I',
            skipping: false,
            copying: None,
            zone: b"UTC".to_vec(),
            input: Vec::new(),
            output: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Takes bytes and answers what is whole.
    pub fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(head) = wire::head(&self.input).unwrap() {
            if self.input.len() < head.bytes {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..head.bytes).collect();
            self.frame(head.kind, &frame[5..]);
        }
    }

    fn frame(&mut self, kind: u8, body: &[u8]) {
        if let Some(extended) = self.copying {
            return self.copy(kind, extended);
        }
        if self.skipping && kind != b'S' {
            return;
        }
        let answer = match kind {
            b'Q' => {
                self.query(body);
                Ok(())
            }
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'C' => {
                let (name, _) = wire::cstr(&body[1..]).unwrap();
                self.prepared.remove(name);
                craft::close_complete(&mut self.output);
                Ok(())
            }
            b'E' => self.execute(),
            b'S' => {
                self.skipping = false;
                if self.status == b'I' {
                    self.portal = None;
                }
                craft::ready(&mut self.output, self.status);
                Ok(())
            }
            // Flush, and what is left of a COPY that failed.
            b'H' | b'd' | b'c' | b'f' => Ok(()),
            other => panic!("frame {}", char::from(other)),
        };
        if let Err(fault) = answer {
            self.fail(&fault);
            self.skipping = true;
        }
    }

    fn fail(&mut self, (code, message): &Fault) {
        if self.status == b'T' {
            self.status = b'E';
        }
        self.portal = None;
        let reply = ErrorReply { severity: "ERROR", code, message, detail: None, hint: None };
        craft::error(&mut self.output, &reply);
    }

    fn tag(&mut self, tag: &[u8]) {
        craft::frame(&mut self.output, b'C', |body| {
            body.extend_from_slice(tag);
            body.push(0);
        });
    }

    /// RowDescription of one column.
    fn columns(&mut self) {
        craft::frame(&mut self.output, b'T', |body| body.extend_from_slice(b"\0\x01a\0"));
    }

    fn row(&mut self, value: &[u8]) {
        craft::frame(&mut self.output, b'D', |body| {
            body.extend_from_slice(&[0, 1]);
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value);
        });
    }

    fn query(&mut self, body: &[u8]) {
        let (text, _) = wire::cstr(body).unwrap();
        self.prepared.remove(&b""[..]);
        self.portal = None;
        for statement in text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|s| !s.is_empty()) {
            if let Err(fault) = refuse_bad(statement).and_then(|()| self.run(statement, false)) {
                self.fail(&fault);
                break;
            }
        }
        if self.copying.is_none() {
            craft::ready(&mut self.output, self.status);
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (name, rest) = wire::cstr(body).unwrap();
        let (text, _) = wire::cstr(rest).unwrap();
        if name.is_empty() {
            self.prepared.remove(name);
        }
        refuse_bad(text)?;
        self.refuse_aborted(text)?;
        if !name.is_empty() && self.prepared.contains_key(name) {
            return Err(("42P05", format!("prepared statement \"{}\" already exists", show(name))));
        }
        self.prepared.insert(name.to_vec(), text.to_vec());
        craft::parse_complete(&mut self.output);
        Ok(())
    }

    fn prepared(&self, name: &[u8]) -> Result<Vec<u8>, Fault> {
        let missing = if name.is_empty() {
            "unnamed prepared statement does not exist".to_owned()
        } else {
            format!("prepared statement \"{}\" does not exist", show(name))
        };
        self.prepared.get(name).cloned().ok_or(("26000", missing))
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (_, rest) = wire::cstr(body).unwrap();
        let (name, _) = wire::cstr(rest).unwrap();
        let text = self.prepared(name)?;
        self.refuse_aborted(&text)?;
        self.portal = Some(text);
        self.output.extend_from_slice(b"2\0\0\0\x04");
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (name, _) = wire::cstr(&body[1..]).unwrap();
        let text = self.prepared(name)?;
        // PostgreSQL still describes what returns no rows; where the pooler must tell the statement first, it cannot.
        self.refuse_aborted(&text)?;
        craft::frame(&mut self.output, b't', |body| body.extend_from_slice(&[0, 0]));
        if text.starts_with(b"SELECT") {
            self.columns();
        } else {
            craft::frame(&mut self.output, b'n', |_| {});
        }
        Ok(())
    }

    fn execute(&mut self) -> Result<(), Fault> {
        let Some(text) = self.portal.clone() else {
            return Err(("34000", "portal \"\" does not exist".to_owned()));
        };
        if text.is_empty() {
            self.output.extend_from_slice(b"I\0\0\0\x04");
            return Ok(());
        }
        self.run(&text, true)
    }

    fn refuse_aborted(&self, text: &[u8]) -> Result<(), Fault> {
        let ends = matches!(text, b"" | b"COMMIT" | b"ROLLBACK");
        if self.status == b'E' && !ends {
            return Err(("25P02", "current transaction is aborted".to_owned()));
        }
        Ok(())
    }

    fn run(&mut self, text: &[u8], extended: bool) -> Result<(), Fault> {
        self.refuse_aborted(text)?;
        match text {
            b"BEGIN" => {
                self.status = b'T';
                self.tag(b"BEGIN");
            }
            b"COMMIT" | b"ROLLBACK" => {
                let kept = text == b"COMMIT" && self.status != b'E';
                self.status = b'I';
                self.tag(if kept { b"COMMIT" } else { b"ROLLBACK" });
            }
            b"FAIL" => return Err(("22012", "division by zero".to_owned())),
            b"COPY" => {
                self.copying = Some(extended);
                craft::frame(&mut self.output, b'G', |body| body.extend_from_slice(&[0, 0, 0]));
            }
            b"DEALLOCATE ALL" => {
                self.prepared.retain(|name, _| name.is_empty());
                self.tag(text);
            }
            b"DISCARD ALL" => {
                if self.status != b'I' {
                    return Err(("25001", "DISCARD ALL cannot run inside a transaction block".to_owned()));
                }
                self.prepared.retain(|name, _| name.is_empty());
                self.set_zone(b"UTC");
                self.tag(text);
            }
            b"SHOW zone" => self.select(&self.zone.clone(), extended),
            b"RESET \"zone\"" => {
                self.set_zone(b"UTC");
                self.tag(b"RESET");
            }
            _ => return self.run_with_value(text, extended),
        }
        Ok(())
    }

    fn run_with_value(&mut self, text: &[u8], extended: bool) -> Result<(), Fault> {
        if let Some(value) = text.strip_prefix(b"SELECT pg_catalog.set_config(E'zone',E'") {
            let value = value.strip_suffix(b"',false)").unwrap().to_vec();
            self.set_zone(&value);
            self.select(&value, extended);
        } else if let Some(value) = text.strip_prefix(b"SET zone ") {
            self.set_zone(value);
            self.tag(b"SET");
        } else if let Some(name) = text.strip_prefix(b"DEALLOCATE ") {
            self.prepared(name)?;
            self.prepared.remove(name);
            self.tag(b"DEALLOCATE");
        } else if let Some(value) = text.strip_prefix(b"SELECT ") {
            self.select(value.trim_ascii(), extended);
        } else {
            self.done.push(text.to_vec());
            self.tag(b"INSERT 0 1");
        }
        Ok(())
    }

    fn select(&mut self, value: &[u8], extended: bool) {
        if !extended {
            self.columns();
        }
        self.row(value);
        self.tag(b"SELECT 1");
    }

    fn set_zone(&mut self, value: &[u8]) {
        if self.zone != value {
            self.zone = value.to_vec();
            craft::parameter_status(&mut self.output, "zone", &show(value));
        }
    }

    fn copy(&mut self, kind: u8, extended: bool) {
        match kind {
            b'c' => {
                self.copying = None;
                self.tag(b"COPY 1");
            }
            b'f' => {
                self.copying = None;
                self.fail(&("57014", "COPY from stdin failed".to_owned()));
                self.skipping = extended;
            }
            // Flush and Sync are ignored meanwhile.
            _ => return,
        }
        if !extended {
            craft::ready(&mut self.output, self.status);
        }
    }
}

fn refuse_bad(text: &[u8]) -> Result<(), Fault> {
    if text.starts_with(b"BAD") { Err(("42601", "syntax error".to_owned())) } else { Ok(()) }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
