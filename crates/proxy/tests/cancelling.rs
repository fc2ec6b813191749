//! Cancel requests reach the statement they are meant for, or nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proxy::settings::{PoolSettings, ServerAddress};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_cancels_never_hits_a_neighbour() {
    const CLIENTS: usize = 12;
    const STATEMENTS: usize = 150;
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 3).await;
    let proxy = Arc::new(proxy);
    let (stop, cancelled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (mut clients, mut storm) = (Vec::new(), Vec::new());
    for number in 0..CLIENTS {
        let (mut raw, key) = Raw::login_with_key(&proxy, &[]).await;
        let victim = number % 2 == 0;
        if victim {
            let (stop, port) = (Arc::clone(&stop), port(&proxy));
            storm.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    Raw::cancel(port, &key).await;
                }
            }));
        }
        let cancelled = Arc::clone(&cancelled);
        clients.push(tokio::spawn(async move {
            let prepare = frames().parse("s", "SELECT $1 || left(pg_sleep(0.002)::text, 0)").sync();
            // A victim's first attempts may be cancelled.
            while raw.converse(&prepare.0, 1).await.kinds != "1Z" {}
            for statement in 0..STATEMENTS {
                let canary = format!("canary {number} {statement}");
                let sql = format!("SELECT '{canary}' || left(pg_sleep(0.002)::text, 0)");
                let sent = if statement % 2 == 0 {
                    frames().query(&sql)
                } else {
                    frames().run("s", &[&canary]).sync()
                };
                let answer = raw.converse(&sent.0, 1).await;
                if answer.errors.is_empty() {
                    assert_eq!(answer.rows, [canary], "{answer:?}");
                } else {
                    assert!(victim, "{number}: {answer:?}");
                    assert!(answer.rows.iter().all(|row| *row == canary));
                    assert_eq!(answer.errors.len(), 1);
                    assert_eq!(answer.errors[0].0, "57014", "{answer:?}");
                    cancelled.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in storm {
        task.await.unwrap();
    }
    assert!(cancelled.load(Ordering::Relaxed) > 0, "no cancel met its statement");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_clients_cancel_takes_it_out_of_the_queue() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut holder = Raw::login(&proxy, &[]).await;
    holder.converse(&frames().query("BEGIN").0, 1).await;
    let waiting = || proxy.snapshot().pools[0].clients["waiting"];
    let told = ("57014".to_owned(), "canceling statement due to user request".to_owned());
    let (mut raw, key) = Raw::login_with_key(&proxy, &[]).await;
    for sent in [
        frames().query("SELECT 1"),
        frames().parse("", "SELECT 1").run("", &[]).parse("", "SELECT 2").run("", &[]).sync(),
    ] {
        raw.send(&sent.0).await;
        until("it waits", || waiting() == 1).await;
        Raw::cancel(port(&proxy), &key).await;
        let answer = raw.answer(1).await;
        assert_eq!((answer.kinds.as_str(), &answer.errors), ("EZ", &vec![told.clone()]));
        assert_eq!(waiting(), 0);
    }
    // A client that does nothing, and a key that is nobody's: nothing happens.
    Raw::cancel(port(&proxy), &key).await;
    Raw::cancel(port(&proxy), &[0, 0, 0, 1, 2, 3, 4, 5]).await;
    holder.converse(&frames().query("COMMIT").0, 1).await;
    assert_eq!(raw.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"]);
    assert_eq!(proxy.snapshot().pools[0].acquires["cancelled"], 2);
}

/// Passes connections on to `target`, cancel requests only when told.
async fn slow_for_cancels(target: u16, release: Arc<tokio::sync::Notify>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let release = Arc::clone(&release);
            tokio::spawn(async move {
                let mut head = [0; 8];
                while from.peek(&mut head).await.is_ok_and(|n| n > 0 && n < 8) {}
                if head[4..] == 80_877_102u32.to_be_bytes() {
                    release.notified().await;
                }
                let mut to = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_whose_end_was_not_seen_takes_its_server_along() {
    let postgres = postgres();
    let release = Arc::new(tokio::sync::Notify::new());
    let mut server = server(&postgres, "postgres");
    server.connect_timeout = std::time::Duration::from_secs(1);
    let address = slow_for_cancels(postgres.port(), Arc::clone(&release)).await;
    server.address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: address };
    let proxy = trusting(PoolSettings { max: 1, ..pool(server) }).await;
    let (mut victim, key) = Raw::login_with_key(&proxy, &[]).await;
    let pid = victim.converse(&frames().query("SELECT pg_backend_pid()").0, 1).await.rows;
    victim.send(&frames().query("SELECT pg_sleep(2)").0).await;
    let cancel = tokio::spawn({
        let port = port(&proxy);
        async move { Raw::cancel(port, &key).await }
    });
    assert_eq!(victim.answer(1).await.errors.len(), 0);
    let mut neighbour = Raw::login(&proxy, &[]).await;
    neighbour.send(&frames().query("SELECT pg_backend_pid(), pg_sleep(0.5)").0).await;
    release.notify_waiters();
    let answer = neighbour.answer(1).await;
    assert!(answer.errors.is_empty() && answer.rows != pid, "{answer:?} {pid:?}");
    cancel.await.unwrap();
}
