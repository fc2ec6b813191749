//! System calls of the relaying worker, counted from outside: four that move data in each small transaction (two
//! receive, two send), whatever the protocol and also when the client had to queue, and none that administers
//! sockets. The waits of the event loop are not data calls; many transactions share one under load.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)]

#[path = "syscalls/tracer.rs"]
mod tracer;

use std::future::Future;

use futures_util::future::join_all;
use libc::{c_long, pid_t};
use tests::{Site, connect, wait_until};
use tokio_postgres::{Client, Statement};
use tracer::{Calls, Tracer};

const SERVERS: u64 = 2;
const LIMITS: &str = "max = 2\nmin = 2";
const CLIENTS: u64 = 8;
const TURNS: u64 = 100;

const DATA: [c_long; 10] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
];

/// How a transaction is asked for.
#[derive(Clone, Copy)]
enum Protocol {
    Simple,
    Extended,
    Prepared,
}

/// A client of the pooler, and the statement it has prepared.
type Prepared = (Client, Statement);

async fn ask((client, statement): &Prepared, protocol: Protocol, number: i64) {
    let got: i64 = match protocol {
        Protocol::Simple => {
            let rows = client.simple_query(&format!("SELECT {number}")).await.unwrap();
            let row = rows.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            row.unwrap().get(0).unwrap().parse().unwrap()
        }
        Protocol::Extended => {
            let typed = [(&number as &(dyn tokio_postgres::types::ToSql + Sync), INT8)];
            client.query_typed("SELECT $1", &typed).await.unwrap()[0].get(0)
        }
        Protocol::Prepared => client.query_one(statement, &[&number]).await.unwrap().get(0),
    };
    assert_eq!(got, number);
}

const INT8: tokio_postgres::types::Type = tokio_postgres::types::Type::INT8;

/// The thread of this name in the process.
fn thread(process: u32, name: &str) -> pid_t {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let found = threads
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
    found.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// What the worker calls while `work` runs; all clients of one pool are on one worker.
async fn calls_during(site: &Site, work: impl Future<Output = ()>) -> Calls {
    let worker = thread(site.pid(), "worker-0");
    let tracer = tokio::task::spawn_blocking(move || Tracer::attach(worker)).await.unwrap();
    work.await;
    tokio::task::spawn_blocking(move || tracer.finish()).await.unwrap()
}

/// Calls by which an allocator grows.
const MEMORY: [i64; 4] = [libc::SYS_brk, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_madvise];
/// A histogram may meet a latency for the first time; a call for each transaction or tick would be far more.
const GROWTHS_MAX: u64 = 4;

/// Four data calls for each transaction, and beside them only waits for events.
fn assert_four_each(calls: &Calls, transactions: u64) {
    let data: u64 = DATA.iter().filter_map(|number| calls.get(number)).sum();
    assert_eq!(data, 4 * transactions, "data calls of {transactions} transactions: {calls:?}");
    let waits = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_restart_syscall];
    let mut others = calls.clone();
    others.retain(|number, _| ![&DATA[..], &MEMORY, &waits].iter().any(|known| known.contains(number)));
    let growths: u64 = MEMORY.iter().filter_map(|number| calls.get(number)).sum();
    assert!(growths <= GROWTHS_MAX, "the worker asks for memory: {calls:?}");
    assert!(others.is_empty(), "calls by number beside data and waits: {others:?}");
    let waits: u64 = waits.iter().filter_map(|number| calls.get(number)).sum();
    // One wait for the request, one for the answer, at most; ten ticks a second come on top.
    assert!(waits <= 2 * transactions + 200, "waits for events: {calls:?}");
}

async fn clients(site: &Site, count: u64) -> Vec<Prepared> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = connect(&site.url()).await;
        let statement = client.prepare("SELECT $1::int8").await.unwrap();
        clients.push((client, statement));
    }
    // Both servers get to know the statement.
    join_all(clients.iter().map(|client| async {
        for number in 0..20 {
            ask(client, Protocol::Prepared, number).await;
        }
    }))
    .await;
    clients
}

async fn load(clients: &[Prepared], protocol: Protocol) {
    join_all(clients.iter().map(|client| async {
        for number in 0..TURNS as i64 {
            ask(client, protocol, number).await;
        }
    }))
    .await;
}

/// Value of the metric whose line begins so and has this label value.
fn metric(site: &Site, name: &str, label: &str) -> u64 {
    let metrics = site.http("/metrics");
    let label = format!("\"{label}\"");
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

async fn four_calls(protocol: Protocol) {
    let site = Site::start(LIMITS);
    // A server that opens meanwhile would take the worker's lock from it for a moment.
    wait_until("all servers are open", async || {
        metric(&site, "poolwright_server_connections", "idle") == SERVERS
    })
    .await;
    let one = clients(&site, 1).await;
    let calls = calls_during(&site, load(&one, protocol)).await;
    assert_four_each(&calls, TURNS);

    let many = clients(&site, CLIENTS).await;
    let waited = metric(&site, "poolwright_acquires_total", "waited");
    let calls = calls_during(&site, load(&many, protocol)).await;
    assert_four_each(&calls, CLIENTS * TURNS);
    let waited = metric(&site, "poolwright_acquires_total", "waited") - waited;
    assert!(waited > (CLIENTS - SERVERS) * TURNS / 2, "only {waited} transactions had to queue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_transactions_take_four_data_calls() {
    four_calls(Protocol::Simple).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extended_transactions_take_four_data_calls() {
    four_calls(Protocol::Extended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_transactions_take_four_data_calls() {
    four_calls(Protocol::Prepared).await;
}
