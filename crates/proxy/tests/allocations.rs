//! The relaying worker allocates nothing for a transaction in the steady state, counted by the allocator itself.
//!
//! "Steady" leaves room for what grows with time and not with transactions: a histogram's octave that is met for
//! the first time, the next 1,024 places of the ring of checkouts. That is why whole windows without one allocation are
//! demanded, and few over all windows: one allocation for each transaction, or each two hundredth, fails.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use proxy::settings::PoolSettings;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

/// Counts allocations by thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PLACES: usize = 1 << 16;
static ALLOCATIONS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

thread_local! {
    /// Kernel's number of this thread; 0 until it is known.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no thread-locals any more; nobody asks for its count.
    let _ = THREAD.try_with(|thread| {
        if thread.get() == 0 {
            // SAFETY: gettid has no preconditions and allocates nothing.
            thread.set(unsafe { libc::gettid() } as usize);
        }
        ALLOCATIONS[thread.get() % PLACES].fetch_add(1, Relaxed);
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The worker's thread: all clients of one pool are on one.
fn worker() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let mut named = threads.filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == "worker-0")
    });
    let found = named.next().unwrap();
    assert!(named.next().is_none(), "two workers of this name: run each test in a process of its own");
    found.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

const SERVERS: u32 = 2;
const CLIENTS: i64 = 6;
const WINDOWS: usize = 30;
const TURNS: i64 = 25;

type Prepared = (Client, Statement);

/// One transaction in each protocol, with values that differ each time; then one of several statements.
async fn transactions((client, statement): &Prepared, number: i64) {
    client.simple_query(&format!("SELECT {number}, 'text of client {number}'")).await.unwrap();
    let parameter = [(&number as &(dyn ToSql + Sync), Type::INT8)];
    client.query_typed("SELECT $1", &parameter).await.unwrap();
    client.query_one(statement, &[&number]).await.unwrap();
    client.simple_query("BEGIN").await.unwrap();
    client.query_one(statement, &[&number]).await.unwrap();
    client.simple_query("COMMIT").await.unwrap();
}

async fn window(clients: &[Prepared], turns: i64) {
    let all = clients.iter().enumerate().map(|(at, client)| async move {
        for turn in 0..turns {
            transactions(client, turn * CLIENTS + at as i64).await;
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_allocates_nothing_for_a_transaction() {
    let postgres = support::postgres();
    let settings =
        PoolSettings { max: SERVERS, min: SERVERS, ..support::pool(support::server(&postgres, "postgres")) };
    let proxy = support::proxy(settings).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = support::connect(&support::owner(&proxy, &postgres)).await.unwrap();
        let statement = client.prepare("SELECT $1::int8").await.unwrap();
        clients.push((client, statement));
    }
    tokio::time::timeout(Duration::from_secs(120), async {
        window(&clients, 8 * TURNS).await;
        let worker = worker();
        let mut counts = Vec::new();
        for _ in 0..WINDOWS {
            let before = ALLOCATIONS[worker % PLACES].load(Relaxed);
            window(&clients, TURNS).await;
            counts.push(ALLOCATIONS[worker % PLACES].load(Relaxed) - before);
        }
        let transactions = 4 * CLIENTS as u64 * TURNS as u64;
        assert!(ALLOCATIONS[worker % PLACES].load(Relaxed) > 0, "the worker's allocations are not counted");
        assert!(counts.contains(&0), "allocations in windows of {transactions} transactions: {counts:?}");
        let total: u64 = counts.iter().sum();
        assert!(
            total < WINDOWS as u64 * transactions / 200,
            "allocations in windows of {transactions} transactions: {counts:?}"
        );
    })
    .await
    .unwrap();
    let waited = proxy.snapshot().pools[0].acquires["waited"];
    assert!(waited > 1000, "only {waited} transactions had to queue");
    proxy.stop();
}
