//! The extended protocol's statements and portals.

use std::collections::HashMap;
use std::io;

use wire::craft;

use super::Complaint;
use super::command::{Command, parse};
use super::table::{self, Column, Kind, Row};

/// Statements, and portals, kept for one console.
const KEPT_MAX: usize = 64;

/// Columns that a command answers with; `None`: a tag only.
pub(super) fn columns(command: &Command) -> Option<&'static [Column]> {
    match command {
        Command::Show(topic) => Some(super::columns::columns(*topic)),
        Command::One => Some(&[("?column?", Kind::Int4)]),
        Command::Version => Some(&[("version", Kind::Text)]),
        _ => None,
    }
}

/// A command that was carried out.
pub(super) struct Done {
    rows: std::vec::IntoIter<Row>,
    tag: &'static str,
}

impl Done {
    pub(super) fn rows(tag: &'static str, rows: Vec<Row>) -> Self {
        Self { rows: rows.into_iter(), tag }
    }

    pub(super) fn tag(tag: &'static str) -> Self {
        Self::rows(tag, Vec::new())
    }
}

/// All rows and the tag.
pub(super) fn answer(out: &mut Vec<u8>, command: &Command, done: Done, formats: &[i16]) {
    let columns = columns(command).unwrap_or_default();
    for row in done.rows {
        table::row(out, columns, &row, formats);
    }
    finish(out, command, done.tag);
}

fn finish(out: &mut Vec<u8>, command: &Command, tag: &str) {
    match command {
        // EmptyQueryResponse
        Command::Empty => craft::frame(out, b'I', |_| {}),
        _ => table::complete(out, tag),
    }
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}

/// Portal and most rows (0: all) of an Execute.
pub(super) fn execute_head(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (name, rest) = wire::cstr(body).ok()?;
    Some((name.to_vec(), u32::from_be_bytes(rest.try_into().ok()?) as usize))
}

struct Portal {
    command: Command,
    formats: Vec<i16>,
    done: Option<Done>,
}

/// What one console has prepared and bound. `None` from a method: the message is malformed.
#[derive(Default)]
pub(super) struct Portals {
    statements: HashMap<Vec<u8>, Command>,
    portals: HashMap<Vec<u8>, Portal>,
}

type Step = Option<Result<(), Complaint>>;

impl Portals {
    pub(super) fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let (name, rest) = wire::cstr(body).ok()?;
        let (text, _types) = wire::cstr(rest).ok()?;
        let mut commands = match parse(&String::from_utf8_lossy(text)) {
            Ok(commands) => commands,
            Err(text) => return Some(Err(Complaint::syntax(text))),
        };
        let Some(command) = commands.pop().filter(|_| commands.is_empty()) else {
            let text = "cannot insert multiple commands into a prepared statement".to_owned();
            return Some(Err(Complaint::syntax(text)));
        };
        if !name.is_empty() && self.statements.contains_key(name) {
            let text = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
            return Some(Err(Complaint::new("42P05", text)));
        }
        if self.statements.len() >= KEPT_MAX {
            return Some(Err(Complaint::new("54000", "too many prepared statements for a console")));
        }
        self.statements.insert(name.to_vec(), command);
        craft::parse_complete(out);
        Some(Ok(()))
    }

    pub(super) fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let (name, rest) = wire::cstr(body).ok()?;
        let (statement, rest) = wire::cstr(rest).ok()?;
        let (_formats, rest) = numbers(rest)?;
        let (parameters, rest) = rest.split_first_chunk::<2>()?;
        if u16::from_be_bytes(*parameters) != 0 {
            return Some(Err(Complaint::new("08P01", "commands of the console take no parameters")));
        }
        let (formats, rest) = numbers(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let Some(command) = self.statements.get(statement) else { return Some(Err(no_statement(statement))) };
        let columns = columns(command).unwrap_or_default().len();
        if formats.len() > 1 && formats.len() != columns
            || formats.iter().any(|format| !(0..=1).contains(format))
        {
            return Some(Err(Complaint::new("08P01", "formats do not fit the result's columns")));
        }
        if self.portals.len() >= KEPT_MAX && !self.portals.contains_key(name) {
            return Some(Err(Complaint::new("54000", "too many portals for a console")));
        }
        self.portals.insert(name.to_vec(), Portal { command: command.clone(), formats, done: None });
        // BindComplete
        craft::frame(out, b'2', |_| {});
        Some(Ok(()))
    }

    pub(super) fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let (kind, rest) = body.split_first()?;
        let (name, _) = wire::cstr(rest).ok()?;
        let (command, formats): (&Command, &[i16]) = match kind {
            b'S' => match self.statements.get(name) {
                Some(command) => {
                    // ParameterDescription: none.
                    craft::frame(out, b't', |out| out.extend_from_slice(&[0, 0]));
                    (command, &[])
                }
                None => return Some(Err(no_statement(name))),
            },
            b'P' => match self.portals.get(name) {
                Some(portal) => (&portal.command, &portal.formats),
                None => return Some(Err(no_portal(name))),
            },
            _ => return None,
        };
        match columns(command) {
            Some(columns) => table::describe(out, columns, formats),
            // NoData
            None => craft::frame(out, b'n', |_| {}),
        }
        Some(Ok(()))
    }

    pub(super) fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let (kind, rest) = body.split_first()?;
        let (name, _) = wire::cstr(rest).ok()?;
        match kind {
            b'S' => drop(self.statements.remove(name)),
            b'P' => drop(self.portals.remove(name)),
            _ => return None,
        }
        craft::close_complete(out);
        Some(Ok(()))
    }

    /// Portals live as long as their transaction.
    pub(super) fn end_transaction(&mut self) {
        self.portals.clear();
    }

    /// The command of a portal that was not executed yet.
    pub(super) fn to_run(&self, name: &[u8]) -> Result<Option<Command>, Complaint> {
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        Ok(portal.done.is_none().then(|| portal.command.clone()))
    }

    /// What came of it.
    pub(super) fn ran(&mut self, name: &[u8], done: Done) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.done = Some(done);
        }
    }

    /// Gives up to `most` rows (0: all) of an executed portal.
    pub(super) fn give(&mut self, name: &[u8], most: usize, out: &mut Vec<u8>) {
        let Some(Portal { command, formats, done: Some(done) }) = self.portals.get_mut(name) else { return };
        let columns = columns(command).unwrap_or_default();
        let most = if most == 0 { usize::MAX } else { most };
        for row in done.rows.by_ref().take(most) {
            table::row(out, columns, &row, formats);
        }
        if done.rows.len() > 0 {
            // PortalSuspended
            craft::frame(out, b's', |_| {});
        } else {
            finish(out, command, done.tag);
        }
    }
}

fn no_statement(name: &[u8]) -> Complaint {
    let text = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
    Complaint::new("26000", text)
}

fn no_portal(name: &[u8]) -> Complaint {
    Complaint::new("34000", format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

/// A count and as many 16-bit numbers.
fn numbers(bytes: &[u8]) -> Option<(Vec<i16>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let bytes = usize::from(u16::from_be_bytes(*count)) * 2;
    let (numbers, rest) = (rest.get(..bytes)?, rest.get(bytes..)?);
    Some((numbers.as_chunks().0.iter().map(|two| i16::from_be_bytes(*two)).collect(), rest))
}
