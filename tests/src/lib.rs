//! Shared by the tests: start the program and a PostgreSQL, and stop them again.
//!
//! ```no_run
//! let site = tests::Site::start("max = 3\nmin = 1");
//! println!("{}", site.url());
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout)]

pub mod bot;
mod driver;
mod raw;
mod site;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Output};
use std::time::{Duration, Instant};

pub use driver::{bot_folder, drivers_folder, node_folder, python};
pub use raw::{Raw, frame, startup};
pub use site::{Options, Site, TRUST};

const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// The program that cargo built: beside the test's own binary.
///
/// # Panics
/// When it was not built; `cargo build -p poolwright` does.
#[must_use]
pub fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let found = here.ancestors().map(|folder| folder.join("poolwright")).find(|path| path.is_file());
    found.expect("poolwright is not built: run cargo build -p poolwright")
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// When none can be had.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `holds`, asking every 20 ms.
///
/// # Panics
/// When it does not within 30 s; `what` says what was waited for.
pub async fn wait_until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < WAIT_LIMIT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As [`wait_until`], blocking.
///
/// # Panics
/// When it does not hold within 30 s.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT_LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a child to end by itself.
///
/// # Panics
/// When it has not within `limit`; it is killed then.
pub fn ended(child: &mut Child, limit: Duration) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("process {} did not end within {limit:?}", child.id());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends `signal` to a process that the test started and has not waited for.
///
/// # Panics
/// When there is no such process.
#[allow(unsafe_code)]
pub fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: kill touches no memory.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill({pid}, {signal})");
}

/// A client of `url`; its connection runs on the current runtime.
///
/// # Panics
/// When it cannot log in.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Both streams of a finished program as text, for messages.
#[must_use]
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
