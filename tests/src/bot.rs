//! The example bot's tables, data and load, under their own names or under others.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lab::load::{self, LoadPlan};
use lab::workload::Workload;
use stats::Snapshot;
use tokio_postgres::Client;

use crate::{Site, connect};

/// Draws the arrivals: the same in every run.
const LOAD_SEED: u64 = 7;

/// The bot behind Poolwright.
pub struct Bot {
    /// Pooler and PostgreSQL.
    pub site: Site,
    /// Straight to PostgreSQL.
    pub direct: Client,
    /// What the bot does, its keys as many as there are rows.
    pub workload: Workload,
    /// The names used in place of the bot's own; empty if they are the bot's own.
    pub names: BTreeMap<String, String>,
}

/// A file of the example.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn example(file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/discord-bot");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

impl Bot {
    /// Starts PostgreSQL and the pooler, and loads the bot's data at `scale`.
    ///
    /// # Panics
    /// When any of that fails.
    pub async fn start(scale: f64, limits: &str) -> Self {
        let site = Site::start(limits);
        let direct = connect(&site.postgres.url("postgres")).await;
        lab::script::run(&direct, &example("schema.sql")).await.unwrap();
        let data = lab::script::fill(&example("data.sql"), &[("scale", &scale.to_string())]);
        lab::script::run(&direct, &data).await.unwrap();
        let workload = Workload::parse(&example("workload.toml")).unwrap().scaled(scale);
        Self { site, direct, workload, names: BTreeMap::new() }
    }

    /// Renames every table and column, in the database and in the workload, by a mapping that the seed makes.
    ///
    /// # Panics
    /// When PostgreSQL refuses.
    pub async fn rename(&mut self, seed: u64) {
        let mut random = seed;
        let rows = self.direct.query(NAMES, &[]).await.unwrap();
        let mut changes = Vec::new();
        for row in &rows {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            for name in [&table, &column] {
                if !self.names.contains_key(name) {
                    let other = other_name(&mut random, self.names.len());
                    self.names.insert(name.clone(), other);
                }
            }
            changes.push(format!("ALTER TABLE {table} RENAME COLUMN {column} TO {}", self.quoted(&column)));
        }
        let tables: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        changes.extend(
            tables.iter().map(|table| format!("ALTER TABLE {table} RENAME TO {}", self.quoted(table))),
        );
        self.direct.batch_execute(&changes.join(";")).await.unwrap();
        let names = &self.names;
        for operation in &mut self.workload.operations {
            for statement in operation.statements.iter_mut().chain(&mut operation.after) {
                statement.sql = renamed(&statement.sql, names);
            }
        }
    }

    /// The name that stands for the bot's own one.
    #[must_use]
    pub fn name(&self, own: &str) -> String {
        self.names.get(own).cloned().unwrap_or_else(|| own.to_owned())
    }

    /// The same as an SQL identifier.
    #[must_use]
    pub fn quoted(&self, own: &str) -> String {
        format!("\"{}\"", self.name(own).replace('"', "\"\""))
    }

    /// `sql` under the names that stand for the bot's own.
    #[must_use]
    pub fn sql(&self, sql: &str) -> String {
        renamed(sql, &self.names)
    }

    /// Runs the load through the pooler and answers what the pooler saw of it. Each run needs a round of its own: the
    /// same values twice within a minute are repeated reads.
    ///
    /// # Panics
    /// When the load fails, or an operation of it.
    pub async fn observe(&self, rate_ops: f64, duration: Duration, round: u64) -> Snapshot {
        let before = self.snapshot();
        let plan = LoadPlan {
            url: self.site.url(),
            workload: Arc::new(self.workload.clone()),
            fixed: BTreeSet::new(),
            rate_ops,
            duration,
            seed: LOAD_SEED,
            round,
            connections_max: 200,
        };
        let result = load::run(plan).await.unwrap();
        assert_eq!(result.errors, 0, "{result:?}");
        self.snapshot().since(&before)
    }

    /// What the pooler has seen since its start.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        serde_json::from_str(&self.site.http("/snapshot.json")).unwrap()
    }
}

const NAMES: &str = "SELECT table_name::text, column_name::text FROM information_schema.columns \
                     WHERE table_schema = 'public' ORDER BY 1, 2";

/// A seed that nobody chose: from `SEED` in the environment to repeat a run.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| RandomState::new().hash_one(0))
}

/// A number from a sequence (splitmix64); `below` is at most a few thousand.
pub fn draw(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
}

/// Plain names, reserved words, capitals, blanks, quotes and letters beyond ASCII.
fn other_name(random: &mut u64, number: usize) -> String {
    const FORMS: [&str; 8] = ["n", "Word", "two words", "grün", "it\"s", "col_", "UPPER", "a.b"];
    const RESERVED: [&str; 6] = ["select", "order", "table", "user", "limit", "group"];
    match draw(random, 10) {
        0 if number < RESERVED.len() => RESERVED[number].to_owned(),
        _ => format!("{}{number}", FORMS[draw(random, FORMS.len())]),
    }
}

/// Every word of `sql` outside of quotes that is one of `names`, replaced and quoted.
fn renamed(sql: &str, names: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (number, piece) in sql.split('\'').enumerate() {
        if number > 0 {
            out.push('\'');
        }
        if number % 2 == 1 {
            out.push_str(piece);
            continue;
        }
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let mut rest = piece;
        while !rest.is_empty() {
            let end = rest.find(|c| part(c) != rest.starts_with(part)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            match names.get(word) {
                Some(name) => out.push_str(&format!("\"{}\"", name.replace('"', "\"\""))),
                None => out.push_str(word),
            }
            rest = after;
        }
    }
    out
}
