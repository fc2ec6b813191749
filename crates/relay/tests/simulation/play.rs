//! What the clients do, drawn from a seed, and how it is judged.

use relay::{Inspect, Replacement, Rewriting, StatementInfo};
use wire::craft;

pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Judges the miniature's statements.
pub struct Judge;

impl Inspect for Judge {
    fn statement(&mut self, sql: &[u8]) -> StatementInfo {
        let discards = matches!(sql, b"DISCARD ALL" | b"DEALLOCATE ALL");
        StatementInfo {
            control: matches!(sql, b"BEGIN" | b"COMMIT" | b"ROLLBACK"),
            deallocates: sql.starts_with(b"DEALLOCATE ") && !discards,
            discards,
            ..StatementInfo::default()
        }
    }

    fn deallocated(&mut self, sql: &[u8]) -> Option<Vec<u8>> {
        Some(sql.strip_prefix(b"DEALLOCATE ")?.to_vec())
    }
}

/// Live rewrites that must not be noticed: one with the same answer, one that PostgreSQL refuses, one that it refuses
/// only with its literals.
#[derive(Default)]
pub struct Rewrites {
    pub failed: [bool; 4],
    pub applied: u64,
}

impl Rewriting for Rewrites {
    fn replacement(&mut self, sql: &[u8], _: &StatementInfo, _: &[u8]) -> Option<Replacement> {
        let (rewrite, text, trial) = match sql {
            b"SELECT 3" => (1, "SELECT 3 ", None),
            b"SELECT 4" => (2, "BAD 4", None),
            b"SELECT 5" => (3, "BAD 5", Some("SELECT 5  ")),
            _ => return None,
        };
        let bytes = |text: &str| text.as_bytes().to_vec();
        self.in_force(rewrite).then(|| Replacement { rewrite, text: bytes(text), trial: trial.map(bytes) })
    }

    fn in_force(&self, rewrite: u32) -> bool {
        !self.failed[rewrite as usize]
    }
}

/// What a client sends at once, and the ReadyForQuerys it waits for then.
pub struct Burst {
    pub frames: Vec<u8>,
    pub ready: usize,
}

pub const NAMES: [&str; 4] = ["", "a", "b", "pw_1"];
pub const TEXTS: [&str; 14] = [
    "SELECT 1",
    "SELECT 2",
    "SELECT 3",
    "SELECT 4",
    "SELECT 5",
    "INSERT",
    "FAIL",
    "BAD",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SHOW zone",
    "SET zone Mars",
    "SET zone Moon",
];
pub const DROPS: [&str; 5] =
    ["DEALLOCATE a", "DEALLOCATE b", "DEALLOCATE pw_1", "DEALLOCATE ALL", "DISCARD ALL"];

pub fn text(random: &mut Random) -> &'static str {
    if random.below(12) == 0 { random.one(&DROPS) } else { random.one(&TEXTS) }
}

pub fn extended(random: &mut Random, frames: &mut Vec<u8>) {
    let name = random.one(&NAMES).as_bytes();
    // An unnamed statement is prepared where it is used: one that a skipped Parse would have replaced is lost,
    // other than on PostgreSQL.
    if name.is_empty() {
        craft::parse(frames, name, format!("{}\0\0\0", text(random)).as_bytes());
    }
    for _ in 0..1 + random.below(4) {
        match random.below(10) {
            0..4 => {
                let tail = format!("{}\0\0\0", text(random));
                craft::parse(frames, name, tail.as_bytes());
            }
            4..8 => {
                craft::bind(frames, b"", name, &[0; 6], 0);
                craft::frame(frames, b'E', |body| body.extend_from_slice(&[0; 5]));
            }
            8 => craft::describe_statement(frames, name),
            _ => craft::close_statement(frames, name),
        }
    }
    if random.below(5) == 0 {
        craft::flush(frames);
    }
}

pub fn burst(random: &mut Random) -> Burst {
    let (mut frames, mut ready) = (Vec::new(), 0);
    for _ in 0..1 + random.below(3) {
        match random.below(8) {
            0..3 => craft::query(&mut frames, text(random).as_bytes()),
            3 => {
                craft::query(&mut frames, b"COPY");
                craft::frame(&mut frames, b'd', |body| body.extend_from_slice(b"a row\n"));
                if random.below(3) == 0 {
                    craft::copy_fail(&mut frames, "no");
                } else {
                    craft::frame(&mut frames, b'c', |_| {});
                }
            }
            _ => {
                for _ in 0..1 + random.below(4) {
                    extended(random, &mut frames);
                }
                craft::sync(&mut frames);
            }
        }
        ready += 1;
    }
    Burst { frames, ready }
}
