//! Prepared statements by raw frames, on servers that change.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_taken_twice_is_told_by_the_clients_own_name() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    assert_eq!(raw.converse(&frames().parse("mine", "SELECT 1").sync().0, 1).await.kinds, "1Z");
    for _ in 0..2 {
        let twice = frames().parse("mine", "SELECT 2").run("mine", &[]).sync();
        let answer = raw.converse(&twice.0, 1).await;
        assert_eq!(answer.kinds, "EZ");
        let told = ("42P05".to_owned(), "prepared statement \"mine\" already exists".to_owned());
        assert_eq!(answer.errors, [told]);
    }
    // The first stands.
    assert_eq!(raw.converse(&frames().run("mine", &[]).sync().0, 1).await.rows, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deallocate_drops_the_clients_own_in_both_protocols() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let (mut one, mut other) = (Raw::login(&proxy, &[]).await, Raw::login(&proxy, &[]).await);
    let prepare = frames().parse("Mine", "SELECT 7").sync().0;
    for raw in [&mut one, &mut other] {
        assert_eq!(raw.converse(&prepare, 1).await.kinds, "1Z");
    }
    let gone = [("26000".to_owned(), "prepared statement \"Mine\" does not exist".to_owned())];
    for drop in [
        frames().query("DEALLOCATE \"Mine\""),
        frames().parse("", "DEALLOCATE PREPARE \"Mine\"").run("", &[]).sync(),
        frames().parse("d", "DEALLOCATE \"Mine\"").run("d", &[]).close("d").sync(),
        frames().query("DEALLOCATE ALL"),
        frames().query("DISCARD ALL"),
        frames().parse("", "DEALLOCATE ALL").run("", &[]).sync(),
        frames().parse("", "DISCARD ALL").run("", &[]).sync(),
        frames().close("Mine").sync(),
    ] {
        let answer = one.converse(&drop.0, 1).await;
        assert_eq!(answer.errors, [], "{answer:?}");
        assert_eq!(one.converse(&frames().run("Mine", &[]).sync().0, 1).await.errors, gone);
        // The neighbour's of the same name and text stands.
        assert_eq!(other.converse(&frames().run("Mine", &[]).sync().0, 1).await.rows, ["7"]);
        assert_eq!(one.converse(&prepare, 1).await.kinds, "1Z");
        assert_eq!(one.converse(&frames().run("Mine", &[]).sync().0, 1).await.rows, ["7"]);
    }
    // What the client never prepared, and names of the pooler's own kind, are not there.
    for name in ["nobody", "pw_1", "pw_2"] {
        let text = format!("DEALLOCATE {name}");
        for drop in [frames().query(&text), frames().parse("", &text).run("", &[]).sync()] {
            let answer = one.converse(&drop.0, 1).await;
            assert_eq!(answer.errors[0].0, "26000", "{name}");
        }
    }
    assert_eq!(other.converse(&frames().run("Mine", &[]).sync().0, 1).await.rows, ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deallocate_that_fails_drops_nothing() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.converse(&frames().parse("mine", "SELECT 7").sync().0, 1).await;
    let failed = frames().query("BEGIN").query("SELECT 1/0").query("DEALLOCATE mine").query("ROLLBACK");
    assert_eq!(raw.converse(&failed.0, 4).await.kinds, "CZEZEZCZ");
    let skipped =
        frames().parse("", "SELECT 1/0").run("", &[]).parse("", "DEALLOCATE mine").run("", &[]).sync();
    assert_eq!(raw.converse(&skipped.0, 1).await.kinds, "1EZ");
    assert_eq!(raw.converse(&frames().run("mine", &[]).sync().0, 1).await.rows, ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_behind_discard_all_in_one_batch_stands() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let batch = frames().parse("a", "SELECT 1").run("a", &[]).parse("", "DEALLOCATE ALL").run("", &[]);
    let batch = batch.parse("a", "SELECT 1").run("a", &[]).parse("b", "SELECT 2").run("b", &[]).sync();
    let answer = raw.converse(&batch.0, 1).await;
    assert_eq!(
        (answer.kinds.as_str(), answer.rows),
        ("12DC12C12DC12DCZ", vec!["1".to_owned(), "1".to_owned(), "2".to_owned()])
    );
    let again = frames().run("a", &[]).run("b", &[]).sync();
    assert_eq!(raw.converse(&again.0, 1).await.rows, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_and_skipped_statements_are_never_remembered() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let (mut one, mut other) = (Raw::login(&proxy, &[]).await, Raw::login(&proxy, &[]).await);
    for raw in [&mut one, &mut other] {
        // The first fails, the second is skipped.
        let batch = frames().parse("bad", "SELECT nothing").parse("good", "SELECT 3").run("good", &[]).sync();
        let answer = raw.converse(&batch.0, 1).await;
        assert_eq!((answer.kinds.as_str(), answer.errors[0].0.as_str()), ("EZ", "42703"));
        for name in ["bad", "good"] {
            let answer = raw.converse(&frames().run(name, &[]).sync().0, 1).await;
            let told = format!("prepared statement \"{name}\" does not exist");
            assert_eq!(answer.errors, [("26000".to_owned(), told)]);
        }
        // The names are free.
        let batch = frames()
            .parse("bad", "SELECT 4")
            .parse("good", "SELECT 3")
            .run("good", &[])
            .run("bad", &[])
            .sync();
        let answer = raw.converse(&batch.0, 1).await;
        assert_eq!((answer.kinds.as_str(), answer.rows), ("112DC2DCZ", vec!["3".to_owned(), "4".to_owned()]));
        // What is known already is answered locally, but not behind an error.
        let batch =
            frames().parse("", "SELECT 1/0").run("", &[]).parse("late", "SELECT 3").close("good").sync();
        let answer = raw.converse(&batch.0, 1).await;
        assert!(answer.kinds.ends_with("EZ") && !answer.kinds.contains('3'), "{answer:?}");
        assert_eq!(raw.converse(&frames().run("good", &[]).sync().0, 1).await.rows, ["3"]);
        assert_eq!(raw.converse(&frames().run("late", &[]).sync().0, 1).await.errors[0].0, "26000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_drops_the_unnamed_statement() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let (mut one, mut other) = (Raw::login(&proxy, &[]).await, Raw::login(&proxy, &[]).await);
    assert_eq!(one.converse(&frames().parse("", "SELECT 5").sync().0, 1).await.kinds, "1Z");
    // Another client's comes between: it is not this one's.
    assert_eq!(other.converse(&frames().run("", &[]).sync().0, 1).await.errors[0].0, "26000");
    assert_eq!(other.converse(&frames().parse("", "SELECT 6").sync().0, 1).await.kinds, "1Z");
    assert_eq!(one.converse(&frames().run("", &[]).sync().0, 1).await.rows, ["5"]);
    assert_eq!(other.converse(&frames().run("", &[]).sync().0, 1).await.rows, ["6"]);
    assert_eq!(one.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"]);
    assert_eq!(one.converse(&frames().run("", &[]).sync().0, 1).await.errors[0].0, "26000");
    assert_eq!(other.converse(&frames().run("", &[]).sync().0, 1).await.rows, ["6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_never_touches_the_batch_in_flight() {
    let (proxy, _admin, _postgres) = site(|pool| (pool.max, pool.statements_per_server) = (1, 3)).await;
    let (mut one, mut other) = (Raw::login(&proxy, &[]).await, Raw::login(&proxy, &[]).await);
    for round in 0..3 {
        for (start, raw) in [(0, &mut one), (100, &mut other)] {
            let (mut batch, mut expected) = (frames(), Vec::new());
            for n in start..start + 10 {
                let name = format!("s{n}");
                if round == 0 {
                    batch = batch.parse(&name, &format!("SELECT {n}"));
                }
                batch = batch.describe(&name).run(&name, &[]);
                expected.push(n.to_string());
            }
            for n in (start..start + 10).rev() {
                batch = batch.run(&format!("s{n}"), &[]);
                expected.push(n.to_string());
            }
            let answer = raw.converse(&batch.sync().0, 1).await;
            assert_eq!((answer.errors, answer.rows), (Vec::new(), expected), "round {round}");
        }
    }
    // Between batches room is made for what is new.
    assert_eq!(one.converse(&frames().parse("new", "SELECT -1").sync().0, 1).await.kinds, "1Z");
    let count = frames().query("SELECT count(*) FROM pg_prepared_statements");
    assert_eq!(one.converse(&count.0, 1).await.rows, ["3"]);
    // Nor is one remembered that a transaction already aborted would refuse.
    assert_eq!(one.converse(&frames().query("BEGIN").query("SELECT 1/0").0, 2).await.kinds, "CZEZ");
    let answer = one.converse(&frames().parse("late", "SELECT -1").sync().query("ROLLBACK").0, 2).await;
    assert_eq!((answer.kinds.as_str(), answer.errors[0].0.as_str()), ("EZCZ", "25P02"));
    assert_eq!(one.converse(&frames().run("late", &[]).sync().0, 1).await.errors[0].0, "26000");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_with_flush_and_sync_answer_in_order() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let known = frames().parse("k", "SELECT $1::int + 1").sync();
    assert_eq!(raw.converse(&known.0, 1).await.kinds, "1Z");
    // Flush: the answer comes without a Sync, local replies included.
    raw.send(&frames().parse("again", "SELECT $1::int + 1").flush().0).await;
    assert_eq!(raw.next().await.unwrap().0, b'1');
    raw.send(&frames().run("again", &["4"]).flush().0).await;
    let mut kinds = String::new();
    while kinds.len() < 3 {
        kinds.push(char::from(raw.next().await.unwrap().0));
    }
    assert_eq!(kinds, "2DC");
    raw.send(&frames().close("again").flush().0).await;
    assert_eq!(raw.next().await.unwrap().0, b'3');
    assert_eq!(raw.converse(&frames().sync().0, 1).await.kinds, "Z");
    // Several batches and queries at once; the one that fails costs only itself.
    let pipeline =
        frames().run("k", &["1"]).sync().run("k", &["x"]).run("k", &["2"]).sync().query("SELECT 9");
    let answer = raw.converse(&pipeline.run("k", &["3"]).sync().0, 4).await;
    assert_eq!(answer.kinds, "2DCZEZTDCZ2DCZ");
    assert_eq!(
        (answer.rows, answer.errors[0].0.as_str()),
        (vec!["2".to_owned(), "9".to_owned(), "4".to_owned()], "22P02")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_counted_as_they_ended() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let count = || {
        let transactions = &proxy.snapshot().pools[0].transactions;
        ["commit", "rollback", "abandoned"].map(|kind| transactions.get(kind).copied().unwrap_or(0))
    };
    let mut raw = Raw::login(&proxy, &[]).await;
    for (frames, ready, expected) in [
        (frames().query("SELECT 1"), 1, [1, 0, 0]),
        (frames().query("SELECT 1/0"), 1, [1, 1, 0]),
        (frames().query("BEGIN").query("ROLLBACK"), 2, [1, 2, 0]),
        (frames().query("BEGIN; SELECT 1; COMMIT"), 1, [2, 2, 0]),
        (frames().query("BEGIN").query("SELECT 1/0").query("COMMIT"), 3, [2, 3, 0]),
        (
            frames()
                .query("BEGIN")
                .query("SAVEPOINT a")
                .query("SELECT 1/0")
                .query("ROLLBACK TO a")
                .query("COMMIT"),
            5,
            [3, 3, 0],
        ),
        (frames().parse("", "SELECT 1").run("", &[]).sync(), 1, [4, 3, 0]),
        (frames().parse("", "SELECT 1/0").run("", &[]).sync(), 1, [4, 4, 0]),
    ] {
        raw.converse(&frames.0, ready).await;
        assert_eq!(count(), expected);
    }
    raw.converse(&frames().query("BEGIN").0, 1).await;
    drop(raw);
    until("the transaction is rolled back", || count() == [4, 4, 1]).await;
}
