//! SIGHUP under load: limits go up and down, passwords change, and no client notices.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::{Site, connect, wait_for};

const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_under_load_and_no_client_is_dropped() {
    let site = Site::start("max = 3\nmin = 1\nidle_timeout = \"200ms\"");
    let (ended, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut loads = Vec::new();
    for _ in 0..CLIENTS {
        let client = connect(&site.url()).await;
        let (ended, answers) = (Arc::clone(&ended), Arc::clone(&answers));
        loads.push(tokio::spawn(async move {
            let sleep = client.prepare("SELECT pg_sleep($1)").await.unwrap();
            while !ended.load(Ordering::Relaxed) {
                client.execute(&sleep, &[&0.003_f64]).await.unwrap();
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let servers = || site.pool().servers.values().sum::<u32>();
    let more_answers = || {
        let before = answers.load(Ordering::Relaxed);
        wait_for("the load goes on", || answers.load(Ordering::Relaxed) > before + 50);
    };
    wait_for("three servers work", || servers() == 3);
    site.reconfigure("max = 3", "max = 6");
    wait_for("more are opened for those who wait", || servers() == 6);
    more_answers();
    site.reconfigure("max = 6", "max = 1");
    wait_for("all but one are closed", || servers() == 1);
    more_answers();
    site.reconfigure("max = 1", "max = 4");
    wait_for("four work", || servers() == 4);
    site.reconfigure("max = 4", "max = 4\nnonsense = 1");
    wait_for("a bad file is refused", || site.log().contains("unknown key nonsense"));
    more_answers();
    assert_eq!(site.pool().max, 4);
    assert_eq!(site.snapshot().client_connections, CLIENTS as u64, "the same connections all the time");
    ended.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    let pool = site.pool();
    assert_eq!(pool.errors.values().sum::<u64>(), 0, "{:?}", pool.errors);
}
