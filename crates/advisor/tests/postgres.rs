//! The advisor on a real PostgreSQL: names of its own, one index already there.
#![allow(clippy::unwrap_used)]

use advisor::{apply, doctor, indexes, queries};
use lab::postgres::{StartOptions, Throwaway};
use stats::FingerprintSnapshot;
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str = r#"
CREATE TABLE "Captains" (key bigserial PRIMARY KEY, badge bigint NOT NULL, rank int NOT NULL);
CREATE TABLE voyages (key bigserial PRIMARY KEY, badge bigint NOT NULL, began timestamptz NOT NULL, miles int);
CREATE TABLE harbours (key bigserial PRIMARY KEY, port bigint NOT NULL, day date NOT NULL, ships int);
CREATE TABLE rules (port bigint NOT NULL, body text NOT NULL);
CREATE TABLE flags (port bigint NOT NULL, body text NOT NULL);
INSERT INTO "Captains" (badge, rank) SELECT g * 7919, g % 10 FROM generate_series(1, 40000) g;
INSERT INTO voyages (badge, began, miles)
  SELECT (g % 40000) * 7919, now() - g * interval '1 minute', g % 900 FROM generate_series(1, 150000) g;
INSERT INTO harbours (port, day, ships) SELECT g % 3000, current_date - g % 365, g FROM generate_series(1, 90000) g;
INSERT INTO rules SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g;
INSERT INTO flags SELECT g, 'x' FROM generate_series(1, 100) g;
CREATE INDEX there_already ON rules (port);
"#;

const STATEMENTS: [&str; 6] = [
    r#"SELECT * FROM "Captains" WHERE badge = $1"#,
    "SELECT miles FROM voyages WHERE badge = $1 ORDER BY began DESC LIMIT $2",
    "SELECT v.miles FROM voyages v WHERE v.badge = $1",
    "UPDATE harbours SET ships = ships + $1 WHERE port = $2",
    "SELECT body FROM rules WHERE port = $1",
    "SELECT body FROM flags WHERE port = $1",
];

fn observed() -> Vec<FingerprintSnapshot> {
    let seen = |(number, query): (usize, &&str)| FingerprintSnapshot {
        id: format!("{number:016x}"),
        query: (*query).to_owned(),
        calls: 1_000,
        ..FingerprintSnapshot::default()
    };
    STATEMENTS.iter().enumerate().map(seen).collect()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn started() -> (Throwaway, Client) {
    let server = Throwaway::start(&StartOptions::default()).unwrap();
    let client = connect(&server.url("postgres")).await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute("ANALYZE").await.unwrap();
    // The counters of the load and of ANALYZE arrive a little later.
    let late =
        "SELECT count(*) FROM pg_stat_user_tables WHERE n_mod_since_analyze > 0 OR last_analyze IS NULL";
    let began = std::time::Instant::now();
    while client.query_one(late, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(began.elapsed().as_secs() < 30, "the statistics never came");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        client.batch_execute("ANALYZE").await.unwrap();
    }
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_missing_indexes_are_found_built_and_dropped() {
    let (server, client) = started().await;
    let plain = indexes::advise(&client, &observed()).await.unwrap();
    let leading = |advice: &[indexes::IndexAdvice]| {
        let mut list: Vec<String> = advice.iter().map(|i| format!("{}.{}", i.table, i.columns[0])).collect();
        list.sort();
        list.dedup();
        list
    };
    let expected = ["Captains.badge", "harbours.port", "voyages.badge"];
    assert_eq!(leading(&plain), expected, "{plain:#?}");
    assert!(plain.iter().all(|index| index.method == "explain" && index.cost_after.is_none()));

    if indexes::enable_hypopg(&client).await.is_ok() {
        let priced = indexes::advise(&client, &observed()).await.unwrap();
        assert_eq!(leading(&priced), expected, "{priced:#?}");
        for index in &priced {
            assert!(index.cost_after.unwrap() < index.cost_before, "{index:#?}");
            assert!(index.plan_before.contains("Seq Scan") && index.plan_after.is_some(), "{index:#?}");
        }
    }

    let paths =
        apply::write_migrations(&std::env::temp_dir().join(format!("advisor-{}", server.port())), &plain);
    let paths = paths.unwrap();
    assert_eq!(paths.len(), plain.len() * 2);
    assert!(paths[0].to_str().unwrap().contains("/0001_idx_"));
    std::fs::remove_dir_all(paths[0].parent().unwrap()).unwrap();

    for index in &plain {
        let built = apply::build(&server.url("postgres"), index, |_| {}).await.unwrap();
        assert!(built.valid && built.size_bytes > 0, "{built:?}");
    }
    assert!(indexes::advise(&client, &observed()[..1]).await.unwrap().is_empty(), "nothing is advised twice");
    assert!(apply::build(&server.url("postgres"), &plain[0], |_| {}).await.is_err());
    apply::drop(&server.url("postgres"), &plain[0]).await.unwrap();
    assert_eq!(indexes::advise(&client, &observed()[..1]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_are_proven_and_the_doctor_looks() {
    let (server, client) = started().await;
    let original = "SELECT miles FROM voyages WHERE badge = $1";
    queries::prove(&client, original, &format!("{original} LIMIT 100")).await.unwrap();
    let columns = queries::prove(&client, original, "SELECT key FROM voyages WHERE badge = $1").await;
    assert!(columns.unwrap_err().contains("columns"));
    let types = queries::prove(&client, original, "SELECT miles FROM voyages WHERE began = $1").await;
    assert!(types.unwrap_err().contains("parameter"));
    assert!(queries::prove(&client, original, "SELECT nothing FROM voyages").await.is_err());

    let fresh = doctor::examine(&client).await.unwrap();
    assert!(fresh.facts.contains_key("server_version"), "{fresh:#?}");
    assert_eq!(fresh.facts["statement_timeout"], "0ms", "the session's, not ours");
    let looked: Vec<_> = fresh.skipped.iter().filter(|part| !part.contains("not installed")).collect();
    assert!(looked.is_empty(), "{looked:#?}");
    assert!(fresh.healthy(), "{fresh:#?}");

    client.batch_execute("CREATE INDEX double ON rules (port)").await.unwrap();
    client
        .batch_execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'voyages_pkey'::regclass")
        .await
        .unwrap();
    let sick = doctor::examine(&client).await.unwrap();
    assert!(!sick.healthy());
    let titles: Vec<&str> = sick.problems.iter().map(|problem| problem.title.as_str()).collect();
    assert!(titles.iter().any(|title| title.contains("invalid")), "{titles:?}");
    assert!(titles.iter().any(|title| title.contains("doubles")), "{titles:?}");
    drop(server);
}
