//! Shared by the tests: start the program and a PostgreSQL, and stop them again.
//!
//! ```no_run
//! let site = tests::Site::start("max = 3\nmin = 1");
//! println!("{}", site.url());
//! ```
#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::postgres::{StartOptions, Throwaway, USER};
use tempfile::TempDir;

const READY_LIMIT: Duration = Duration::from_secs(20);
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

/// A PostgreSQL with Poolwright before it; both end with this value.
pub struct Site {
    /// The database behind.
    pub postgres: Throwaway,
    serve: Child,
    folder: TempDir,
    port: u16,
    metrics_port: u16,
}

impl Site {
    /// Starts both. `limits` are lines of the pool's table, such as `max = 3`.
    ///
    /// # Panics
    /// When either does not come up within 20 s.
    #[must_use]
    pub fn start(limits: &str) -> Self {
        let postgres = Throwaway::start(&StartOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (port, metrics_port) = (free_port(), free_port());
        let file = folder.path().join("poolwright.toml");
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\n\n[pool.postgres]\nserver = \"{}\"\n{limits}\n\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n",
            postgres.url("postgres")
        );
        std::fs::write(&file, text).unwrap();
        let serve = Command::new(program()).arg("serve").arg(&file).stdin(Stdio::null()).spawn().unwrap();
        let mut site = Self { postgres, serve, folder, port, metrics_port };
        site.wait_until_listening();
        site
    }

    fn wait_until_listening(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.serve.try_wait().unwrap() {
                panic!("poolwright serve ended at once: {status}");
            }
            assert!(began.elapsed() < READY_LIMIT, "poolwright serve does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The clients' connection string, through Poolwright.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.postgres.password(), self.port)
    }

    /// Port of the pooler on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The pooler's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.serve.id()
    }

    /// Its configuration file, to be rewritten before a SIGHUP.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("poolwright.toml")
    }

    /// Body of `path` of its HTTP listener.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn http(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.metrics_port);
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// One of PostgreSQL's programs, aimed at the pooler by its environment.
    #[must_use]
    pub fn client(&self, name: &str) -> Command {
        let beside = self.postgres.bin().join(name);
        let mut command = Command::new(if beside.is_file() { beside } else { PathBuf::from(name) });
        self.aim(&mut command);
        command
    }

    /// Puts the pooler's address and the password into a command's environment.
    pub fn aim(&self, command: &mut Command) {
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGPASSWORD", self.postgres.password())
            .env("PGDATABASE", "postgres")
            .env("POOL_URL", self.url())
            .stdin(Stdio::null());
    }

    /// True while the pooler runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.serve.try_wait(), Ok(None))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
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

/// The folder for what drivers need, kept between runs: `drivers/` in cargo's build folder.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn drivers_folder() -> PathBuf {
    let folder = program().parent().and_then(Path::parent).unwrap().join("drivers");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Python with psycopg 3 and asyncpg, in a virtual environment made at first use.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn python() -> PathBuf {
    let venv = drivers_folder().join("venv");
    let _alone = alone(&venv);
    if !venv.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "-q", "psycopg[binary]>=3,<4", "asyncpg<1"]));
        std::fs::write(venv.join("ready"), "").unwrap();
    }
    venv.join("bin/python")
}

/// A folder whose `node_modules` holds node-postgres, filled at first use.
///
/// # Panics
/// When npm cannot install it.
#[must_use]
pub fn node_folder() -> PathBuf {
    let folder = drivers_folder().join("node");
    let _alone = alone(&folder);
    if !folder.join("ready").exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("package.json"), "{\"private\":true}").unwrap();
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "pg@8"])
            .current_dir(&folder));
        std::fs::write(folder.join("ready"), "").unwrap();
    }
    folder
}

/// A lock beside `path`, held until dropped: tests run at the same time, and one fills the folder for all.
fn alone(path: &Path) -> std::fs::File {
    let lock = std::fs::File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}
