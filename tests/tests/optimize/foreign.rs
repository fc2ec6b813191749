//! `optimize` on a database that is somebody's: it looks, and does no more than it was allowed to.

use std::process::{Command, Output};

use lab::postgres::{StartOptions, Throwaway};
use serde_json::Value;
use tests::{connect, said, wait_until};
use tokio_postgres::Client;

use crate::workspace::Workspace;

/// Everything that DDL or DML of ours would change: relations with their files, extensions, and the counts of rows
/// written and of scans.
const STATE: &str = "SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (\
    SELECT format('%s %s %s %s', c.oid, c.relname, c.relfilenode, c.relkind) AS line FROM pg_class c \
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_toast') \
    UNION ALL SELECT format('%s %s', oid, extname) FROM pg_extension \
    UNION ALL SELECT format('%s %s %s', oid, proname, pronamespace) FROM pg_proc WHERE oid >= 16384 \
    UNION ALL SELECT format('%s %s %s %s %s %s', relid, n_tup_ins, n_tup_upd, n_tup_del, seq_scan, idx_scan) \
      FROM pg_stat_user_tables) state";

const TABLES: &str =
    "CREATE TABLE visits (id bigint PRIMARY KEY, visitor bigint NOT NULL, page text NOT NULL);
    INSERT INTO visits SELECT n, n % 5000, 'page ' || n % 100 FROM generate_series(1, 100000) n;
    CREATE TABLE visitors (id bigint PRIMARY KEY, name text NOT NULL);
    INSERT INTO visitors SELECT n, 'visitor ' || n FROM generate_series(0, 4999) n;
    ANALYZE";

/// A workload on those tables with a look-up without index and LIMIT.
const WORKLOAD: &str = "rate = 20
[before]
max = 6
min = 6
[keys.visitor]
count = 50
first = 0
step = 1
[[operation]]
name = \"visits of a page\"
weight = 3
[[operation.statement]]
sql = \"SELECT id, visitor FROM visits WHERE page = $1\"
params = [{ choice = [\"page 1\", \"page 2\", \"page 3\"] }]
[[operation]]
name = \"visitor\"
weight = 1
[[operation.statement]]
sql = \"SELECT id, page FROM visits WHERE visitor = $1 ORDER BY id LIMIT 10\"
params = [{ key = \"visitor\" }]
";

/// Somebody's PostgreSQL, with statements that pg_stat_statements has seen.
struct Foreign {
    postgres: Throwaway,
}

impl Foreign {
    async fn start() -> Self {
        let settings = vec![("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned())];
        let postgres = Throwaway::start(&StartOptions { settings, ..StartOptions::default() }).unwrap();
        let foreign = Self { postgres };
        let client = foreign.client().await;
        client.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
        client.batch_execute(TABLES).await.unwrap();
        for visitor in 0..20_i64 {
            let rows =
                client.query("SELECT id, page FROM visits WHERE visitor = $1", &[&visitor]).await.unwrap();
            assert_eq!(rows.len(), 20);
        }
        foreign
    }

    fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    /// The state once all other backends have gone and told their counts.
    async fn state(&self) -> String {
        let client = self.client().await;
        wait_until("only this connection is left", async || {
            let others = "SELECT count(*) FROM pg_stat_activity \
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        client.query_one(STATE, &[]).await.unwrap().get(0)
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn report(workspace: &Workspace) -> Value {
    serde_json::from_slice(&std::fs::read(workspace.out().join("report.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_consent_a_database_is_looked_at_and_left_as_it_is() {
    let (foreign, workspace) = (Foreign::start().await, Workspace::new());
    let before = foreign.state().await;
    let said_by = output(workspace.command(&["optimize", &foreign.url()])).await;
    assert_eq!(said_by.status.code(), Some(1), "nothing was proven: {}", said(&said_by));
    assert_eq!(foreign.state().await, before, "{}", said(&said_by));
    let report = report(&workspace);
    assert_eq!(report["phases"], Value::Array(Vec::new()));
    assert_eq!(report["indexes"][0]["columns"][0], "visitor", "{report}");
    assert_eq!(report["indexes"][0]["valid"], false);
    assert!(!said(&said_by).contains(foreign.postgres.password()));
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_nobody_can_be_asked_for_is_not_given() {
    let (foreign, workspace) = (Foreign::start().await, Workspace::new());
    let load = workspace.write("load.toml", WORKLOAD);
    let before = foreign.state().await;
    for consent in [vec!["--apply"], vec!["--load", load.to_str().unwrap()]] {
        let arguments = [vec!["optimize"], consent.clone(), vec![foreign.url().leak()]].concat();
        let said_by = output(workspace.command(&arguments)).await;
        assert_eq!(said_by.status.code(), Some(2), "{consent:?}: {}", said(&said_by));
        assert!(said(&said_by).contains("--yes"), "{}", said(&said_by));
        assert_eq!(foreign.state().await, before, "{consent:?}");
        assert!(!workspace.out().exists());
    }
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_consent_the_index_is_built_and_its_migration_stays() {
    let (foreign, workspace) = (Foreign::start().await, Workspace::new());
    let said_by = output(workspace.command(&["optimize", &foreign.url(), "--apply", "--yes"])).await;
    let told = said(&said_by);
    for shown in ["127.0.0.1", "postgres", "CREATE INDEX CONCURRENTLY", "about"] {
        assert!(told.contains(shown), "{shown}: {told}");
    }
    let index = report(&workspace)["indexes"][0].clone();
    assert_eq!((&index["kept"], &index["valid"]), (&Value::Bool(true), &Value::Bool(true)), "{told}");
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let name = index["name"].as_str().unwrap();
    assert!(foreign.client().await.query_one(valid, &[&name]).await.unwrap().get::<_, bool>(0));
    let mut files: Vec<String> = std::fs::read_dir(workspace.out().join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, [format!("0001_{name}.down.sql"), format!("0001_{name}.up.sql")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_measured_run_takes_what_was_agreed_to_and_nothing_that_changes_the_rows() {
    let (foreign, workspace) = (Foreign::start().await, Workspace::new());
    let load = workspace.write("load.toml", WORKLOAD);
    let arguments =
        ["optimize", &foreign.url(), "--load", load.to_str().unwrap(), "--yes", "--quick", "--accept", "all"];
    let said_by = output(workspace.command(&arguments)).await;
    assert!(matches!(said_by.status.code(), Some(0 | 1)), "{}", said(&said_by));
    let report = report(&workspace);
    assert_eq!(report["phases"].as_array().unwrap().len(), 5);
    let findings = report["findings"].as_array().unwrap();
    let limit =
        findings.iter().find(|finding| finding["kind"] == "missing_limit").expect("the fault is found");
    assert_eq!((&limit["same_rows"], &limit["accepted"]), (&Value::Bool(false), &Value::Bool(false)));
    for finding in findings {
        assert_eq!(finding["accepted"], finding["same_rows"], "{finding}");
        assert!(finding["accepted"] == true || finding["applied"] == false, "{finding}");
    }
    assert!(!report["indexes"].as_array().unwrap().is_empty());
    assert!(report["indexes"].as_array().unwrap().iter().all(|index| index["build_ms"].is_null()));
    let indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'idx_%'";
    assert_eq!(foreign.client().await.query_one(indexes, &[]).await.unwrap().get::<_, i64>(0), 0);
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_out_is_said_and_leaves_no_half_report() {
    let (foreign, workspace) = (Foreign::start().await, Workspace::new());
    let program = workspace.command(&["optimize", &foreign.url()]);
    // No file may grow past 512 bytes: the system answers as on a full disk, with an error of the write.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]).arg(program.get_program());
    limited.args(program.get_args()).env("TMPDIR", workspace.out().with_file_name("tmp"));
    let said_by = output(limited).await;
    assert_eq!(said_by.status.code(), Some(2), "{}", said(&said_by));
    assert!(said(&said_by).contains("cannot write to"), "{}", said(&said_by));
    assert!(!workspace.out().exists(), "nothing is left");
    workspace.assert_clean();
}

#[test]
fn a_bad_workload_file_is_refused_at_its_line() {
    let workspace = Workspace::new();
    let load = workspace.write("load.toml", &WORKLOAD.replace("key = \"visitor\"", "key = \"visitr\""));
    let nowhere = "postgres://u:p@127.0.0.1:1/d";
    let arguments = ["optimize", nowhere, "--load", load.to_str().unwrap(), "--yes"];
    let said_by = workspace.command(&arguments).output().unwrap();
    assert_eq!(said_by.status.code(), Some(2));
    let told = said(&said_by);
    assert!(told.contains("load.toml:19:") && told.contains("`visitr`"), "{told}");
    assert!(!workspace.out().exists());
}
