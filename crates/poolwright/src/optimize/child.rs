//! `poolwright serve` as a child process, so that its memory and CPU are measured alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::kept::Kept;

use super::settings::Settings;

/// How long the child may take until it answers.
const START_MAX: Duration = Duration::from_secs(10);
/// How long new settings may take to come into force.
const APPLY_MAX: Duration = Duration::from_secs(5);
/// How long the child may take to leave before it is killed.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// A child that did not start, did not answer or did not take its settings.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// A file or a process failed.
    #[error("cannot run the pooler: {0}")]
    Io(#[from] std::io::Error),
    /// It ended before it answered.
    #[error("the pooler ended at once; its log says: {0}")]
    Ended(String),
    /// It did not answer in time.
    #[error("the pooler did not answer on {0} within 10 s")]
    Silent(String),
    /// An answer that could not be had or read.
    #[error("no answer from the pooler: {0}")]
    Http(String),
}

/// Asks the child over HTTP; cheap to clone.
#[derive(Debug, Clone)]
pub struct Asker {
    agent: ureq::Agent,
    address: String,
}

impl Asker {
    fn new(address: &str) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        Self { agent, address: address.to_owned() }
    }

    /// Runs a request on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&ureq::Agent, &str) -> Result<T, ureq::Error> + Send + 'static,
    ) -> Result<T, ChildError> {
        let Self { agent, address } = self.clone();
        tokio::task::spawn_blocking(move || request(&agent, &address))
            .await
            .map_err(|error| ChildError::Http(error.to_string()))?
            .map_err(|error| ChildError::Http(error.to_string()))
    }

    /// Everything it has counted so far; the checkout records only if asked for.
    ///
    /// # Errors
    /// It does not answer, or not with a snapshot.
    pub async fn snapshot(&self, checkouts: bool) -> Result<stats::Snapshot, ChildError> {
        self.ask(move |agent, address| {
            let url = format!("http://{address}/snapshot.json?checkouts={}", u8::from(checkouts));
            agent.get(url).call()?.body_mut().with_config().limit(ANSWER_MAX).read_json()
        })
        .await
    }

    /// Marks a moment in its metrics, for the dashboard's annotations.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn event(&self, kind: &str, id: &str) -> Result<(), ChildError> {
        let id: String = id.chars().take(64).collect();
        let body = serde_json::json!({ "kind": kind, "id": id });
        self.ask(move |agent, address| {
            agent.post(format!("http://{address}/events")).send_json(&body).map(drop)
        })
        .await
    }

    async fn healthy(&self) -> bool {
        self.ask(|agent, address| agent.get(format!("http://{address}/healthz")).call().map(drop))
            .await
            .is_ok()
    }
}

/// A running `serve`; dropping it ends it.
#[derive(Debug)]
pub struct Pooler {
    /// `None` once it was left running.
    process: Option<Kept>,
    file: PathBuf,
    settings: Settings,
    asker: Asker,
}

impl Pooler {
    /// Writes `serve.toml` into `folder` (which must be private) and starts the child on it. Unless it `outlives`
    /// this program, it dies with it, however that ends.
    ///
    /// # Errors
    /// The child cannot start or does not become healthy; it has been ended then.
    pub async fn start(folder: &Path, settings: Settings, outlives: bool) -> Result<Self, ChildError> {
        let file = folder.join("serve.toml");
        settings.write(&file)?;
        let log = std::fs::File::create(folder.join("serve.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Some(Kept::start(command, (!outlives).then_some(libc::SIGINT))?);
        let asker = Asker::new(&settings.metrics);
        let mut pooler = Self { process, file, settings, asker };
        pooler.wait_until_healthy().await?;
        Ok(pooler)
    }

    async fn wait_until_healthy(&mut self) -> Result<(), ChildError> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if !self.process.as_ref().is_some_and(Kept::is_running) {
                let log = self.file.with_file_name("serve.log");
                let text = std::fs::read_to_string(log).unwrap_or_default();
                return Err(ChildError::Ended(text.trim().chars().take(600).collect()));
            }
            if self.asker.healthy().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Err(ChildError::Silent(self.settings.metrics.clone()))
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Kept::pid)
    }

    /// What it was last told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// For tasks that ask it beside the phases.
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Rewrites its file and asks it to read it again; returns when the new limits are in force.
    ///
    /// # Errors
    /// The file cannot be written, or the limits do not show in the snapshot within 5 s.
    pub async fn apply(&mut self, settings: Settings) -> Result<(), ChildError> {
        settings.write(&self.file)?;
        if let Some(process) = &self.process {
            process.signal(libc::SIGHUP);
        }
        self.settings = settings;
        let until = Instant::now() + APPLY_MAX;
        while Instant::now() < until {
            let snapshot = self.asker.snapshot(false).await?;
            let limits = &self.settings.limits;
            let taken = snapshot.pools.iter().any(|pool| {
                pool.name == self.settings.pool
                    && (pool.max, pool.min) == (limits.max, limits.min)
                    && pool.idle_timeout_ms == limits.idle_timeout_ms
                    && pool.query_timeout_ms == limits.query_timeout_ms
            });
            if taken {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(ChildError::Http("the new settings did not come into force within 5 s".into()))
    }

    /// Lets it run on after this program; gives its process id.
    pub fn leave_running(mut self) -> u32 {
        self.process.take().map_or(0, |process| process.pid())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(&[libc::SIGINT], LEAVE_MAX);
        }
    }
}

/// An address on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// No port can be had.
pub fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
