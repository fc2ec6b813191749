//! One pass over a query: its id, command, effects and limits.

use crate::normal::{Part, Parts};
use crate::{Command, Effects};

/// What one pass over a query finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Stable hash of the normalised tokens.
    pub id: u64,
    /// Command of the first statement.
    pub command: Command,
    /// Effects of all statements on the session.
    pub effects: Effects,
    /// OFFSET at the outermost level.
    pub offset: Option<Place>,
    /// LIMIT or FETCH FIRST at the outermost level.
    pub limit: Option<Place>,
    /// False when the text ends inside a string, quoted name or comment; the id is then that of the command.
    pub complete: bool,
    /// Statements in the text, at most 255.
    pub statements: u8,
}

/// Where a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a parameter, counted from 1.
    Param(u16),
    /// In the text.
    Literal(u64),
}

/// Reads a query once, without allocating. Any bytes will do; a terminating zero is allowed.
pub fn scan(sql: &[u8]) -> Shape {
    let mut scan = Scan::default();
    let mut parts = Parts::new(sql);
    for part in parts.by_ref() {
        scan.part(part);
    }
    let command = scan.first.unwrap_or(Command::Empty);
    let complete = parts.complete();
    let mut hash = scan.hash;
    if !complete {
        hash = Hash::default();
        hash.bytes(b'w', command.as_str().as_bytes());
    }
    Shape {
        id: hash.finish(),
        command,
        effects: scan.effects,
        offset: scan.offset,
        limit: scan.limit,
        complete,
        statements: scan.statements,
    }
}

/// FNV-1a over tagged, case-folded tokens, mixed at the end. Fixed for ever: ids are public.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.byte(tag);
        for byte in bytes {
            self.byte(if tag == b'w' { byte.to_ascii_lowercase() } else { *byte });
        }
        self.byte(0);
    }

    fn finish(self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ mixed >> 29
    }
}

/// State of the pass.
#[derive(Default)]
struct Scan<'a> {
    hash: Hash,
    first: Option<Command>,
    command: Option<Command>,
    effects: Effects,
    statements: u8,
    /// Tokens of this statement so far.
    tokens: u32,
    depth: u32,
    last: &'a [u8],
    second_last: &'a [u8],
    separator: bool,
    /// An earlier statement of the text was a SET for the session.
    set_before: bool,
    offset: Option<Place>,
    limit: Option<Place>,
}

impl<'a> Scan<'a> {
    fn part(&mut self, part: Part<'a>) {
        if part == Part::Symbol(b";") && self.depth == 0 {
            self.end_statement();
            return;
        }
        if self.tokens == 0 {
            self.statements = self.statements.saturating_add(1);
            if std::mem::take(&mut self.separator) {
                self.hash.bytes(b's', b";");
            }
            if self.statements > 1 {
                self.effects |= Effects::MULTIPLE;
            }
        }
        self.tokens += 1;
        let mut word: &'a [u8] = b"";
        match part {
            Part::Word(text) => {
                self.hash.bytes(b'w', text);
                self.word(text);
                word = text;
            }
            Part::Quoted(text) => {
                self.hash.bytes(b'q', text);
                if text.starts_with(b"\"") {
                    self.name(text.get(1..text.len().saturating_sub(1)).unwrap_or(b""));
                } else {
                    // U&"…": its escapes may spell any name.
                    self.effects |= Effects::SET_CONFIG;
                }
                self.start(b"");
            }
            Part::Literal(_) | Part::Param(_) => {
                self.hash.byte(b'v');
                self.number(part);
                self.start(b"");
            }
            Part::Symbol(text) => {
                self.hash.bytes(b's', text);
                match text {
                    b"(" => self.depth += 1,
                    b")" => self.depth = self.depth.saturating_sub(1),
                    _ => {
                        self.start(b"");
                    }
                }
            }
        }
        // Symbols and values stand between words: `LIMIT (` is no `LIMIT 5`.
        self.second_last = self.last;
        self.last = word;
    }

    fn end_statement(&mut self) {
        self.separator |= self.tokens > 0;
        self.tokens = 0;
        self.command = None;
        self.last = b"";
        self.second_last = b"";
    }

    /// The command is the first word, brackets before it left aside.
    fn start(&mut self, word: &[u8]) -> bool {
        if self.command.is_some() {
            return false;
        }
        let command = Command::of(word);
        self.set_command(command);
        match command {
            Command::Set | Command::Reset => {
                self.set_before = self.effects.contains(Effects::SET_SESSION);
                self.effects |= Effects::SET_SESSION;
            }
            Command::Listen => self.effects |= Effects::LISTEN,
            Command::Prepare => self.effects |= Effects::PREPARE,
            Command::Deallocate => self.effects |= Effects::DEALLOCATE_ONE,
            Command::Copy
            | Command::Vacuum
            | Command::Analyze
            | Command::Reindex
            | Command::Cluster
            | Command::Refresh => self.effects |= Effects::TIMEOUT_EXEMPT,
            // What a block does to its session cannot be told.
            Command::Do => self.effects |= Effects::SET_SESSION,
            // A library stays loaded for the session.
            Command::Other if is(word, "LOAD") => self.effects |= Effects::SET_SESSION,
            _ => {}
        }
        true
    }

    fn set_command(&mut self, command: Command) {
        self.command = Some(command);
        if self.statements <= 1 {
            self.first = Some(command);
        }
    }

    fn drop(&mut self, effect: Effects) {
        self.effects = Effects(self.effects.0 & !effect.0);
    }

    fn word(&mut self, word: &'a [u8]) {
        if self.start(word) {
            return;
        }
        self.name(word);
        let second = self.tokens == 2;
        match self.command {
            Some(Command::Set)
                if second && ["LOCAL", "TRANSACTION", "CONSTRAINTS"].iter().any(|known| is(word, known)) =>
            {
                // An earlier SET may have been for the session: that stays.
                if !self.set_before {
                    self.drop(Effects::SET_SESSION);
                }
                if is(word, "LOCAL") {
                    self.effects |= Effects::SET_LOCAL;
                }
            }
            Some(Command::Prepare) if second && is(word, "TRANSACTION") => {
                self.drop(Effects::PREPARE);
                self.set_command(Command::Other);
            }
            Some(Command::Deallocate) if is(word, "ALL") => {
                self.drop(Effects::DEALLOCATE_ONE);
                self.effects |= Effects::DEALLOCATE_ALL;
            }
            Some(Command::Reset) if second && is(word, "ALL") => {
                if !self.set_before {
                    self.drop(Effects::SET_SESSION);
                }
                self.effects |= Effects::RESET_ALL;
            }
            Some(Command::Discard) if second && is(word, "ALL") => self.effects |= Effects::DISCARD_ALL,
            Some(Command::Declare) if is(word, "HOLD") && is(self.last, "WITH") => {
                self.effects |= Effects::HOLD_CURSOR;
            }
            Some(Command::Create) => self.create(word),
            Some(Command::Rollback) if is(word, "TO") => self.set_command(Command::RollbackTo),
            Some(Command::Rollback | Command::Commit) if is(word, "PREPARED") => {
                self.set_command(Command::Other);
            }
            Some(Command::With) if self.depth == 0 => {
                let main = Command::of(word);
                if matches!(
                    main,
                    Command::Select | Command::Insert | Command::Update | Command::Delete | Command::Merge
                ) {
                    self.set_command(main);
                }
            }
            _ => {}
        }
        // SELECT INTO LOCAL TEMP, EXPLAIN ANALYZE CREATE TEMP, and the like.
        let before = ["INTO", "CREATE", "LOCAL", "GLOBAL"];
        if (is(word, "TEMP") || is(word, "TEMPORARY")) && before.iter().any(|known| is(self.last, known)) {
            self.effects |= Effects::TEMP_TABLE;
        }
    }

    fn create(&mut self, word: &[u8]) {
        let early = self.tokens <= 5;
        if early && (is(word, "TEMP") || is(word, "TEMPORARY")) {
            self.effects |= Effects::TEMP_TABLE;
        }
        if is(word, "INDEX") && self.tokens <= 3 {
            self.effects |= Effects::TIMEOUT_EXEMPT;
            self.set_command(Command::CreateIndex);
        }
    }

    /// Names of functions that change the session, quoted or not.
    fn name(&mut self, name: &[u8]) {
        const LOCKS: [&str; 4] = [
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ];
        if is(name, "set_config") {
            self.effects |= Effects::SET_CONFIG;
        } else if LOCKS.iter().any(|lock| is(name, lock)) {
            self.effects |= Effects::ADVISORY_LOCK;
        } else if is(name, "pg_temp") {
            self.effects |= Effects::TEMP_TABLE;
        } else if is(name, "pg_settings") && self.command == Some(Command::Update) {
            self.effects |= Effects::SET_SESSION;
        }
    }

    /// LIMIT n, OFFSET n, FETCH FIRST n.
    fn number(&mut self, part: Part<'_>) {
        if self.depth > 0 {
            return;
        }
        let place = match part {
            Part::Param(number) => Place::Param(number),
            Part::Literal(text) => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(number) => Place::Literal(number),
                None => return,
            },
            _ => return,
        };
        if is(self.last, "LIMIT")
            || (is(self.last, "FIRST") || is(self.last, "NEXT")) && is(self.second_last, "FETCH")
        {
            self.limit = Some(place);
        } else if is(self.last, "OFFSET") {
            self.offset = Some(place);
        }
    }
}

fn is(word: &[u8], known: &str) -> bool {
    word.eq_ignore_ascii_case(known.as_bytes())
}
