//! Live rewrites on a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod support;

use proxy::Proxy;
use proxy::settings::{PoolSettings, Rewrite};
use support::{Raw, ask, connect, owner, pool, postgres, server, settings};
use tokio_postgres::{Client, SimpleQueryMessage};

const ALL: &str = "SELECT n FROM numbers WHERE kind = $1 ORDER BY n";
const FEW: &str = "SELECT n FROM numbers WHERE kind = $1 ORDER BY n LIMIT 3";

fn rewrite(id: &str, original: &str, replacement: &str) -> Rewrite {
    Rewrite {
        id: id.to_owned(),
        original: original.to_owned(),
        replacement: replacement.to_owned(),
        same_rows: false,
        parameter_types: Vec::new(),
    }
}

struct Place {
    // Declared first: dropped first.
    proxy: Proxy,
    pool: PoolSettings,
    postgres: lab::postgres::Throwaway,
}

impl Place {
    async fn start(max: u32, rewrites: Vec<Rewrite>) -> Self {
        let postgres = postgres();
        let pool = PoolSettings { max, rewrites, ..pool(server(&postgres, "postgres")) };
        let place = Self { proxy: support::trusting(pool.clone()).await, pool, postgres };
        let client = place.client().await;
        let table = "CREATE TABLE numbers AS SELECT n, n % 10 AS kind FROM generate_series(1, 1000) n";
        ask(&client, table).await.unwrap();
        place
    }

    async fn client(&self) -> Client {
        connect(&owner(&self.proxy, &self.postgres)).await.unwrap()
    }

    fn reload(&self, rewrites: Vec<Rewrite>) {
        let pool = PoolSettings { rewrites, ..self.pool.clone() };
        let settings = proxy::Settings {
            listen: self.proxy.settings().listen.clone(),
            ..settings(proxy::settings::AuthMethod::Trust, vec![pool])
        };
        self.proxy.reload(settings).unwrap();
    }

    fn state(&self, id: &str) -> (String, u64, u64) {
        let states = self.proxy.snapshot().rewrites;
        let state = states.iter().find(|state| state.id == id).unwrap();
        assert_eq!((state.pool.as_str(), state.rows.as_str()), ("app", "different"));
        (state.state.clone(), state.applied, state.failures)
    }
}

/// Rows of a simple query.
async fn simple(client: &Client, sql: &str) -> usize {
    let answer = client.simple_query(sql).await.unwrap();
    answer.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_replaced_with_its_literals() {
    let place = Place::start(1, vec![rewrite("few", ALL, FEW)]).await;
    let client = place.client().await;
    // The first goes as it came: the server is asked beside it whether it takes the replacement.
    assert_eq!(simple(&client, "SELECT n FROM numbers WHERE kind = 7 ORDER BY n").await, 100);
    for kind in [7, 3, -1] {
        let sql = format!("select n from numbers /* kind */ where kind = {kind} order by n;");
        assert_eq!(simple(&client, &sql).await, if kind < 0 { 0 } else { 3 });
    }
    assert_eq!(ask(&client, "SELECT n FROM numbers WHERE kind = 4 ORDER BY n").await.unwrap(), "4");
    assert_eq!(simple(&client, "SELECT n FROM numbers WHERE kind = 7 ORDER BY n DESC").await, 100);
    assert_eq!(place.state("few"), ("active".to_owned(), 4, 0));
    // Inside a transaction a failure would end it: the client's own text goes.
    ask(&client, "BEGIN").await.unwrap();
    assert_eq!(simple(&client, "SELECT n FROM numbers WHERE kind = 7 ORDER BY n").await, 100);
    ask(&client, "COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_is_replaced_on_every_server() {
    let place = Place::start(3, Vec::new()).await;
    let clients = [place.client().await, place.client().await, place.client().await];
    let mut statements = Vec::new();
    for client in &clients {
        statements.push(client.prepare(ALL).await.unwrap());
        assert_eq!(client.query(&statements[statements.len() - 1], &[&7i32]).await.unwrap().len(), 100);
    }
    // Statements that were prepared before are replaced as well.
    place.reload(vec![rewrite("few", ALL, FEW)]);
    for round in 0..3 {
        // Open transactions: each client on a server of its own.
        each(&clients, "BEGIN").await;
        let mut pids = each(&clients, "SELECT pg_backend_pid()").await;
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), 3);
        for (client, statement) in clients.iter().zip(&statements) {
            let rows = client.query(statement, &[&3i32]).await.unwrap();
            assert_eq!(rows[0].get::<_, i32>(0), 3);
            assert!(rows.len() == 3 || rows.len() == 100);
            // A server is asked when it is at rest, so at the latest between the first two transactions.
            assert!(rows.len() == 3 || round == 0, "round {round}: {} rows", rows.len());
        }
        each(&clients, "COMMIT").await;
    }
    let (state, applied, failures) = place.state("few");
    assert_eq!((state.as_str(), failures), ("active", 0));
    assert!(applied >= 6, "{applied} applied");

    assert!(place.proxy.revoke("few") && !place.proxy.revoke("few"));
    for (client, statement) in clients.iter().zip(&statements) {
        assert_eq!(client.query(statement, &[&3i32]).await.unwrap().len(), 100);
    }
    assert_eq!(place.state("few"), ("revoked".to_owned(), applied, 0));
    assert!(place.proxy.snapshot().events.iter().any(|e| e.kind == "revoke" && e.id == "few"));
}

/// The answer of each client.
async fn each(clients: &[Client], sql: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for client in clients {
        answers.push(ask(client, sql).await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_without_it_ends_it() {
    let place = Place::start(1, vec![rewrite("few", ALL, FEW)]).await;
    let client = place.client().await;
    let statement = client.prepare(ALL).await.unwrap();
    for rows in [100, 3] {
        // Prepared with a Parse before which the server was at rest: tried there, known from the next one on.
        let found = client.query(&statement, &[&1i32]).await.unwrap().len();
        assert!(found == rows || found == 3, "{found}");
    }
    place.reload(Vec::new());
    assert_eq!(client.query(&statement, &[&1i32]).await.unwrap().len(), 100);
    assert_eq!(place.state("few").0, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_fails_is_never_seen() {
    let wrong = "SELECT n FROM numbers WHERE kind = $1 ORDER BY missing";
    let place = Place::start(2, vec![rewrite("wrong", ALL, wrong)]).await;
    let client = place.client().await;
    for _ in 0..3 {
        assert_eq!(simple(&client, "SELECT n FROM numbers WHERE kind = 7 ORDER BY n").await, 100);
    }
    let statement = client.prepare(ALL).await.unwrap();
    assert_eq!(client.query(&statement, &[&7i32]).await.unwrap().len(), 100);
    assert_eq!(place.state("wrong"), ("failed".to_owned(), 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_with_its_literals_falls_back() {
    // With a parameter the replacement parses; an integer does not fit where it puts the literal.
    let (original, wrong) = ("SELECT length($1::text) FROM numbers", "SELECT length($1) FROM numbers");
    let place = Place::start(1, vec![rewrite("wrong", original, wrong)]).await;
    let client = place.client().await;
    assert_eq!(simple(&client, "SELECT length('abc'::text) FROM numbers").await, 1000);
    assert_eq!(simple(&client, "SELECT length('abc'::text) FROM numbers").await, 1000);
    assert_eq!(place.state("wrong"), ("active".to_owned(), 1, 0));
    // The client's own fault is its own: told as ever, and no failure of the rewrite.
    let pipelined = "SELECT length(12::text) FROM numbers";
    assert_eq!(simple(&client, pipelined).await, 1000);
    assert_eq!(place.state("wrong"), ("failed".to_owned(), 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_behind_a_replaced_query_waits_its_turn() {
    let (original, wrong) = ("SELECT length($1::text)", "SELECT length($1)");
    let place = Place::start(1, vec![rewrite("wrong", original, wrong)]).await;
    let client = place.client().await;
    ask(&client, "SELECT length('abc'::text)").await.unwrap();
    drop(client);
    let mut raw = Raw::login(&place.proxy, &[]).await;
    let mut frames = Vec::new();
    wire::craft::query(&mut frames, b"SELECT length(123456::text)");
    wire::craft::query(&mut frames, b"CREATE TABLE left_behind ()");
    wire::craft::terminate(&mut frames);
    raw.send(&frames).await;
    let mut kinds = String::new();
    while let Some((kind, _)) = raw.next().await {
        kinds.push(char::from(kind));
    }
    assert_eq!(kinds, "TDCZCZ");
    let client = place.client().await;
    assert_eq!(ask(&client, "SELECT count(*) FROM left_behind").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_search_path_or_other_types_are_left_alone() {
    let place = Place::start(1, vec![rewrite("few", ALL, FEW)]).await;
    let plain = place.client().await;
    for rows in [100, 3] {
        assert_eq!(simple(&plain, "SELECT n FROM numbers WHERE kind = 1 ORDER BY n").await, rows);
    }
    ask(&plain, "BEGIN; SET LOCAL search_path = public; COMMIT").await.unwrap();
    assert_eq!(simple(&plain, "SELECT n FROM numbers WHERE kind = 1 ORDER BY n").await, 3);
    let mut config = owner(&place.proxy, &place.postgres);
    let other = connect(config.options("-c search_path=public,pg_catalog")).await.unwrap();
    assert_eq!(simple(&other, "SELECT n FROM numbers WHERE kind = 1 ORDER BY n").await, 100);
    drop(other);
    let int8 = plain.prepare_typed(ALL, &[tokio_postgres::types::Type::INT8]).await.unwrap();
    assert_eq!(plain.query(&int8, &[&1i64]).await.unwrap().len(), 100);
    ask(&plain, "SET search_path = public").await.unwrap();
    assert_eq!(simple(&plain, "SELECT n FROM numbers WHERE kind = 1 ORDER BY n").await, 100);
}
