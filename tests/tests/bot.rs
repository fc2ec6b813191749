//! The example bot's own TypeScript through `poolwright serve`: the workload file says what the bot does, and the
//! demo's figures are worth something only if that is so. What Poolwright saw of the bot must be the workload's
//! statements, all of them and no other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::workload::{Operation, Statement, Workload};
use tests::{Site, bot_folder, said};

const SCALE: &str = "0.01";
/// Users of the bot at the same time, each with one turn of all operations; more than servers.
const TURNS: u64 = 8;

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/discord-bot");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// A pooler before the bot's tables.
fn site() -> Site {
    let site = Site::start("max = 3\nmin = 1");
    for name in ["schema.sql", "data.sql"] {
        let file = site.folder().join(name);
        std::fs::write(&file, example(name).replace("{{scale}}", SCALE)).unwrap();
        let mut psql = site.client("psql");
        psql.env("PGPORT", site.postgres.port().to_string());
        let output = psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    site
}

fn ids<'a>(statements: impl Iterator<Item = &'a Statement>) -> BTreeSet<String> {
    statements.map(|statement| fingerprint::hex(fingerprint::scan(statement.sql.as_bytes()).id)).collect()
}

fn before(operation: &Operation) -> &[Statement] {
    &operation.statements
}

fn after(operation: &Operation) -> &[Statement] {
    if operation.after.is_empty() { &operation.statements } else { &operation.after }
}

/// Runs all operations of one side; what they returned, and the site for a look at what was seen.
fn run(side: &str) -> (serde_json::Value, Site) {
    let site = site();
    let mut node = Command::new("node");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/bot.mjs");
    site.aim(node.arg(script));
    node.env("BOT", bot_folder()).env("SIDE", side).env("DATABASE_URL", site.url());
    node.env("POOL_MAX", TURNS.to_string()).env("TURNS", TURNS.to_string());
    let output = node.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), site)
}

/// The fingerprints that Poolwright saw are those of the workload, with as many calls as the code makes.
fn check(site: &Site, statements: fn(&Operation) -> &[Statement]) {
    let workload = Workload::parse(&example("workload.toml")).unwrap();
    let snapshot = site.snapshot();
    let seen: BTreeSet<String> = snapshot.fingerprints.iter().map(|seen| seen.id.clone()).collect();
    assert_eq!(seen, ids(workload.operations.iter().flat_map(statements)), "{:#?}", snapshot.fingerprints);
    let calls = |operation: &str| {
        let operation = workload.operations.iter().find(|known| known.name == operation).unwrap();
        let id = ids(statements(operation).iter()).pop_first().unwrap();
        snapshot.fingerprints.iter().find(|seen| seen.id == id).unwrap().calls
    };
    let repeats = |operation: &str| {
        let operation = workload.operations.iter().find(|known| known.name == operation).unwrap();
        u64::from(statements(operation)[0].repeat)
    };
    for operation in ["match_history", "leaderboard", "match_archive", "message", "activity_chart", "seen"] {
        assert_eq!(calls(operation), TURNS * repeats(operation), "{operation}");
    }
    assert_eq!(calls("record_tournament"), repeats("record_tournament"));
    for fingerprint in &snapshot.fingerprints {
        assert_eq!(fingerprint.errors, 0, "{}", fingerprint.query);
    }
    assert_eq!(site.psql("SELECT count(*) FROM matches").unwrap(), "20010", "ten matches were recorded");
    assert!(site.pool().servers.values().sum::<u32>() <= 3);
}

#[test]
fn the_bot_does_what_the_workload_says_and_its_repair_returns_the_same() {
    let (team, site) = run("before");
    check(&site, before);
    drop(site);
    let (repaired, site) = run("after");
    check(&site, after);
    assert_eq!(team, repaired);
    assert_eq!(team.as_array().unwrap().len() as u64, TURNS);
    assert!(team[1]["history"].as_u64().unwrap() > 0 && !team[1]["rivals"].as_array().unwrap().is_empty());
}
