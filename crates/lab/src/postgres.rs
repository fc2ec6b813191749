//! A PostgreSQL of our own: made in a temporary folder, on a free port of 127.0.0.1, stopped and deleted with the
//! value that stands for it. It runs with the settings of a default installation, apart from where it listens.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use tempfile::TempDir;

use crate::binaries::{self, Account};
use crate::kept::Kept;

/// The superuser of a throwaway PostgreSQL.
pub const USER: &str = "poolwright";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What may be chosen; the defaults are right for a demonstration.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Folder of `initdb` and `postgres`; `None` looks for it.
    pub bin: Option<PathBuf>,
    /// Extra lines for postgresql.conf, for tests only.
    pub settings: Vec<(String, String)>,
    /// It may be left running with [`Throwaway::keep`]; else it dies with this program, however that ends.
    pub outlives: bool,
}

/// Why no PostgreSQL could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No programs, or no account to run them as.
    #[error("{0}")]
    Missing(String),
    /// A file or process could not be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program said no; its last lines.
    #[error("{program} failed:\n{output}")]
    Failed {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// The end of what it printed.
        output: String,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// A running PostgreSQL that is stopped and deleted when dropped, and stopped when this program dies.
pub struct Throwaway {
    folder: Option<TempDir>,
    bin: PathBuf,
    account: Option<Account>,
    settings: Vec<(String, String)>,
    outlives: bool,
    port: u16,
    password: String,
    server: Option<Kept>,
}

impl Throwaway {
    /// Makes a cluster and starts it; returns when it accepts connections.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left behind.
    pub fn start(options: &StartOptions) -> Result<Self, StartError> {
        let bin = binaries::find(options.bin.as_deref()).map_err(StartError::Missing)?;
        let account = binaries::account().map_err(StartError::Missing)?;
        let folder = tempfile::Builder::new()
            .prefix("poolwright-pg-")
            .tempdir()
            .map_err(io_error("make a temporary folder"))?;
        let mut random = rand::rng();
        let password: String =
            (0..32).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
        let mut made = Self {
            folder: Some(folder),
            bin,
            account,
            settings: options.settings.clone(),
            outlives: options.outlives,
            port: free_port()?,
            password,
            server: None,
        };
        made.initialize()?;
        made.launch()?;
        Ok(made)
    }

    /// `postgres://…` of the superuser for `database`; the password is random.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Folder of PostgreSQL's programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Process id of the postmaster, 0 when stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Kept::pid)
    }

    /// Folder of its Unix socket and its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Process ids of its children: backends and its own workers.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// Stops it (fast shutdown; killed after 10 s) and keeps its files, for a later [`Throwaway::restart`].
    pub fn halt(&mut self) {
        self.end(libc::SIGINT);
    }

    /// Ends it as a crash would (immediate shutdown) and keeps its files.
    pub fn crash(&mut self) {
        self.end(libc::SIGQUIT);
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// As [`Throwaway::start`].
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.halt();
        self.launch()
    }

    /// Leaves it running and its folder in place; gives the folder. Only with [`StartOptions::outlives`] does it
    /// run on when this program has ended.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.server = None;
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("log")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir(self.folder());
        if let Some(account) = self.account {
            command.gid(account.gid).uid(account.uid);
        }
        command.stdin(Stdio::null());
        command
    }

    fn initialize(&self) -> Result<(), StartError> {
        let folder = self.folder();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(io_error("protect the folder"))?;
        let secret = folder.join("password");
        fs::File::create(&secret)
            .and_then(|mut file| writeln!(file, "{}", self.password))
            .map_err(io_error(format!("write {}", secret.display())))?;
        if let Some(account) = self.account {
            for path in [folder, &secret] {
                chown(path, Some(account.uid), Some(account.gid))
                    .map_err(io_error("give the folder away"))?;
            }
        }
        let out = self
            .command("initdb")
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync", "-D"])
            .arg(self.data())
            .arg("--pwfile")
            .arg(&secret)
            .output()
            .map_err(io_error("run initdb"))?;
        let _ = fs::remove_file(&secret);
        if out.status.success() {
            return Ok(());
        }
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        Err(StartError::Failed { program: "initdb", output: tail(&said) })
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let log = fs::File::create(self.log()).map_err(io_error("make the log"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder().display()));
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let errors = log.try_clone().map_err(io_error("make the log"))?;
        command.stdout(log).stderr(errors);
        // SIGQUIT is PostgreSQL's immediate shutdown.
        let death_signal = (!self.outlives).then_some(libc::SIGQUIT);
        self.server = Some(Kept::start(command, death_signal).map_err(io_error("start postgres"))?);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let started = Instant::now();
        // The postmaster writes its state as the eighth line of postmaster.pid (src/include/utils/pidfile.h).
        let state = self.data().join("postmaster.pid");
        loop {
            let ready = fs::read_to_string(&state)
                .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"));
            if ready {
                return Ok(());
            }
            let gone = self.server.as_ref().is_none_or(|server| !server.is_running());
            if gone || started.elapsed() > START_LIMIT {
                let output = tail(&fs::read_to_string(self.log()).unwrap_or_default());
                self.end(libc::SIGQUIT);
                return Err(StartError::Failed { program: "postgres", output });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self, signal: i32) {
        if let Some(server) = self.server.take() {
            server.end(&[signal, libc::SIGQUIT], STOP_LIMIT);
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // The data is deleted next: nothing is worth a checkpoint.
        self.end(libc::SIGQUIT);
    }
}

fn free_port() -> Result<u16, StartError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(io_error("find a port"))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_answers_restarts_and_leaves_nothing() {
        let mut server = Throwaway::start(&StartOptions::default()).unwrap();
        let (folder, pid) = (server.folder().to_path_buf(), server.pid());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |url: String| {
            runtime.block_on(async move {
                let (client, connection) =
                    tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                let connection = tokio::spawn(connection);
                let row = client.query_one("select 6 * 7", &[]).await.unwrap();
                drop(client);
                let _ = connection.await;
                row.get::<_, i32>(0)
            })
        };
        assert_eq!(ask(server.url("postgres")), 42);
        assert!(!server.children().is_empty());
        server.restart().unwrap();
        assert_eq!(ask(server.url("postgres")), 42);
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn says_what_is_missing() {
        let options = StartOptions { bin: Some("/nowhere".into()), ..StartOptions::default() };
        let error = Throwaway::start(&options).err().unwrap().to_string();
        assert!(error.contains("/nowhere") && error.contains("initdb"), "{error}");
    }
}
