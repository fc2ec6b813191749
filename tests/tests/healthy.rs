//! What the advisor must not say: no finding on healthy statements that look like faulty ones, and no knowledge of
//! the example in the product.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use advisor::{indexes, queries};
use lab::workload::Workload;
use tests::bot::example;
use tests::{Site, connect};
use tokio_postgres::Client;

const SCHEMA: &str = "
CREATE TABLE notes (key bigint PRIMARY KEY, owner bigint NOT NULL, colour bigint NOT NULL, body text NOT NULL);
CREATE TABLE colours (key bigint PRIMARY KEY, hue text NOT NULL);
CREATE TABLE visits (key bigserial PRIMARY KEY, owner bigint NOT NULL);
INSERT INTO notes SELECT n, n % 500, n % 40, repeat('x', 100) FROM generate_series(1, 50000) n;
INSERT INTO colours SELECT n, 'hue ' || n FROM generate_series(0, 39) n;
INSERT INTO visits (owner) SELECT n % 500 FROM generate_series(1, 20000) n;
CREATE INDEX ON notes (owner, key)";

/// Longer than the gap that ends a run of statements.
const BREAK: Duration = Duration::from_millis(70);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_look_alikes_yield_nothing() {
    let site = Site::start("max = 3\nmin = 1");
    let direct = connect(&site.postgres.url("postgres")).await;
    direct.batch_execute(SCHEMA).await.unwrap();
    direct.batch_execute("VACUUM ANALYZE").await.unwrap();
    let _priced_or_plain = indexes::enable_hypopg(&direct).await;

    let client = connect(&site.url()).await;
    for round in 0..30_i64 {
        one_round(&client, round).await;
    }
    for key in 1..=12_i64 {
        client.query("SELECT colour, body FROM notes WHERE key = $1", &[&key]).await.unwrap();
        tokio::time::sleep(BREAK).await;
    }

    let seen: stats::Snapshot = serde_json::from_str(&site.http("/snapshot.json")).unwrap();
    let calls = |piece: &str| {
        let of = seen.fingerprints.iter().filter(|f| f.query.contains(piece));
        of.map(|f| f.calls).sum::<u64>()
    };
    assert_eq!(
        (calls("colour, body"), calls("unnest"), calls("OFFSET")),
        (12, 30, 30),
        "was it seen at all?"
    );
    assert_eq!(queries::advise(&direct, &seen.fingerprints).await.unwrap(), []);
    assert_eq!(indexes::advise(&direct, &seen.fingerprints).await.unwrap(), []);
}

/// Each statement is like one of the faults, and none is one.
async fn one_round(client: &Client, round: i64) {
    // A history with its LIMIT, and the first of all by key.
    client
        .query("SELECT key, body FROM notes WHERE owner = $1 ORDER BY key DESC LIMIT 50", &[&round])
        .await
        .unwrap();
    client.query("SELECT key, owner FROM notes ORDER BY key LIMIT 200", &[]).await.unwrap();
    // A small table, read whole and by a column without an index.
    client.query("SELECT key, hue FROM colours ORDER BY hue", &[]).await.unwrap();
    client.query("SELECT key FROM colours WHERE hue = $1", &[&format!("hue {round}")]).await.unwrap();
    // One row by its key, others in between; never the same twice.
    client.query("SELECT body FROM notes WHERE key = $1", &[&(round * 7 + 100)]).await.unwrap();
    // The first pages only.
    let page = round % 5 * 20;
    client
        .query("SELECT key FROM notes WHERE owner = $1 ORDER BY key LIMIT 20 OFFSET $2", &[&round, &page])
        .await
        .unwrap();
    // One row at a time with other work in between, and many rows at once.
    client.execute("INSERT INTO visits (owner) VALUES ($1)", &[&round]).await.unwrap();
    let owners: Vec<i64> = (0..20).map(|n| n + round).collect();
    client
        .execute("INSERT INTO visits (owner) SELECT * FROM unnest($1::bigint[])", &[&owners])
        .await
        .unwrap();
    client.query("SELECT hue FROM colours WHERE key = ANY($1)", &[&owners]).await.unwrap();
    // The whole table summed up.
    client.query("SELECT count(*) FROM visits", &[]).await.unwrap();
    client.execute("UPDATE notes SET body = 'y' WHERE key = $1", &[&(round + 1)]).await.unwrap();
}

/// Names of the example that are also words of Rust, SQL or this product; looked for only where SQL names a table.
const WORDS: [&str; 14] = [
    "id", "settings", "message", "messages", "matches", "result", "seen", "prefix", "users", "about",
    "commands", "day", "locale", "members",
];

/// Tables, columns and operations of the example.
fn names() -> BTreeSet<String> {
    let workload = Workload::parse(&example("workload.toml")).unwrap();
    let mut names: BTreeSet<String> = workload.operations.into_iter().map(|o| o.name).collect();
    for line in example("schema.sql").lines().filter(|line| !line.starts_with("--")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["CREATE", "TABLE", table, ..] => names.insert((*table).to_owned()),
            [column, _, ..] if line.starts_with(' ') => names.insert((*column).to_owned()),
            _ => false,
        };
    }
    names
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_product_knows_no_name_of_the_example() {
    let names = names();
    assert!(names.len() > 30 && names.contains("users") && names.contains("discord_id"), "{names:?}");
    let mut all = Vec::new();
    files(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates"), &mut all);
    assert!(all.len() > 50, "the crates were not found");
    let word = |c: char| c.is_alphanumeric() || c == '_';
    for path in all {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(|c| !word(c)).filter(|word| !word.is_empty()).collect();
            for (place, found) in words.iter().enumerate().filter(|(_, found)| names.contains(**found)) {
                let before = place.checked_sub(1).map_or("", |before| words[before]);
                let named = ["FROM", "INTO", "UPDATE", "JOIN", "TABLE"].contains(&before);
                let ordinary = WORDS.contains(found) && !named;
                assert!(ordinary, "{}:{}: {found} is the example's: {line}", path.display(), number + 1);
            }
        }
    }
}
