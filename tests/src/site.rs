//! A PostgreSQL with Poolwright before it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lab::postgres::{StartOptions, Throwaway, USER};
use tempfile::TempDir;

use crate::{ended, free_port, program, said, signal};

const READY_LIMIT: Duration = Duration::from_secs(20);

/// A table of the configuration that asks no client for a password, for tests that speak the protocol by hand.
pub const TRUST: &str = "[auth]\nmethod = \"trust\"";

/// What a site is started with.
#[derive(Default)]
pub struct Options<'a> {
    /// Lines of the pool's table, such as `max = 3`.
    pub limits: &'a str,
    /// Lines at the top of the file, such as `client_max = 10`.
    pub head: &'a str,
    /// Further tables, such as `[auth]`.
    pub tables: &'a str,
    /// The server's URL instead of that of the site's own PostgreSQL.
    pub server: Option<String>,
    /// Further arguments of `serve`.
    pub arguments: &'a [&'a str],
    /// Settings of PostgreSQL.
    pub postgres: &'a [(&'a str, &'a str)],
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
        Self::open(&Options { limits, ..Options::default() })
    }

    /// Starts both.
    ///
    /// # Panics
    /// When either does not come up within 20 s.
    #[must_use]
    pub fn open(options: &Options<'_>) -> Self {
        let own = options.postgres.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let start = StartOptions { settings: own.collect(), ..StartOptions::default() };
        let postgres = Throwaway::start(&start).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (port, metrics_port) = (free_port(), free_port());
        let server = options.server.clone().unwrap_or_else(|| postgres.url("postgres"));
        let file = folder.path().join("poolwright.toml");
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\n{}\n\n[pool.postgres]\nserver = \"{server}\"\n{}\n\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n\n{}\n",
            options.head, options.limits, options.tables
        );
        std::fs::write(&file, text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let serve = Command::new(program())
            .arg("serve")
            .args(options.arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut site = Self { postgres, serve, folder, port, metrics_port };
        site.wait_until_listening();
        site
    }

    fn wait_until_listening(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.metrics_port)).is_err() {
            if let Some(status) = self.serve.try_wait().unwrap() {
                panic!("poolwright serve ended at once: {status}\n{}", self.log());
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

    /// Port of its HTTP listener on 127.0.0.1.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// The pooler's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.serve.id()
    }

    /// Its configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("poolwright.toml")
    }

    /// A folder that goes with the site.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the pooler has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Replaces `from` by `to` in the configuration file and sends SIGHUP.
    ///
    /// # Panics
    /// When `from` does not occur.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        std::fs::write(self.file(), text.replace(from, to)).unwrap();
        signal(self.pid(), libc::SIGHUP);
    }

    /// Body of `path` of its HTTP listener.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn http(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.metrics_port);
        ureq::get(&url).call().unwrap().body_mut().with_config().limit(64 << 20).read_to_string().unwrap()
    }

    /// The state of its one pool.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn pool(&self) -> stats::PoolSnapshot {
        self.snapshot().pools.remove(0)
    }

    /// All it has counted.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn snapshot(&self) -> stats::Snapshot {
        serde_json::from_str(&self.http("/snapshot.json?checkouts=0")).unwrap()
    }

    /// One of PostgreSQL's programs, aimed at the pooler by its environment.
    #[must_use]
    pub fn client(&self, name: &str) -> Command {
        let beside = self.postgres.bin().join(name);
        let mut command = Command::new(if beside.is_file() { beside } else { PathBuf::from(name) });
        self.aim(&mut command);
        command
    }

    /// Answer of `sql` by psql through the pooler; the error's text when it failed.
    ///
    /// # Panics
    /// When psql cannot be run.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        let output = self.client("psql").args(["-XAtq", "-v", "VERBOSITY=verbose", "-c", sql]).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// How many client connections PostgreSQL has, the asking one excluded.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    #[must_use]
    pub fn postgres_clients(&self) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let mut direct = self.client("psql");
        direct.env("PGPORT", self.postgres.port().to_string()).args(["-XAtc", sql]);
        said(&direct.output().unwrap()).trim().parse().unwrap()
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

    /// Waits until the pooler ends by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn left(&mut self, limit: Duration) -> ExitStatus {
        ended(&mut self.serve, limit)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
        let log = self.log();
        if std::thread::panicking() {
            println!("--- what poolwright serve said:\n{log}");
        } else {
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}
