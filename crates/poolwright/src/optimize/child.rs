//! `poolwright serve` as a child process, so that its memory and CPU are measured alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::settings::Settings;

/// How long the child may take until it answers.
const START_MAX: Duration = Duration::from_secs(10);
/// How long the child may take to leave after SIGTERM.
const LEAVE_MAX: Duration = Duration::from_secs(5);

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

/// A running `serve`; dropping it ends it.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    file: PathBuf,
    settings: Settings,
    agent: ureq::Agent,
}

impl Pooler {
    /// Writes `serve.toml` into `folder` (which must be private) and starts the child on it.
    ///
    /// # Errors
    /// The child cannot start or does not become healthy; it has been ended then.
    pub fn start(folder: &Path, settings: Settings) -> Result<Self, ChildError> {
        let file = folder.join("serve.toml");
        settings.write(&file)?;
        let log = std::fs::File::create(folder.join("serve.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into();
        let mut pooler = Self { child, file, settings, agent };
        pooler.wait_until_healthy()?;
        Ok(pooler)
    }

    fn wait_until_healthy(&mut self) -> Result<(), ChildError> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                let log = self.file.with_file_name("serve.log");
                let text = std::fs::read_to_string(log).unwrap_or_default();
                return Err(ChildError::Ended(text.trim().chars().take(600).collect()));
            }
            if self.agent.get(self.address("healthz")).call().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Err(ChildError::Silent(self.settings.metrics.clone()))
    }

    fn address(&self, page: &str) -> String {
        format!("http://{}/{page}", self.settings.metrics)
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was last told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Everything it has counted so far.
    ///
    /// # Errors
    /// It does not answer, or not with a snapshot.
    pub fn snapshot(&self) -> Result<stats::Snapshot, ChildError> {
        let http = |error: ureq::Error| ChildError::Http(error.to_string());
        let mut answer = self.agent.get(self.address("snapshot.json")).call().map_err(http)?;
        answer.body_mut().with_config().limit(64 << 20).read_json().map_err(http)
    }

    /// Marks a moment in its metrics, for the dashboard's annotations.
    ///
    /// # Errors
    /// It does not answer.
    pub fn event(&self, kind: &str, id: &str) -> Result<(), ChildError> {
        let body = serde_json::json!({ "kind": kind, "id": id });
        let sent = self.agent.post(self.address("events")).send_json(&body);
        sent.map(drop).map_err(|error| ChildError::Http(error.to_string()))
    }

    /// Rewrites its file and asks it to read it again; returns when the new limits are in force.
    ///
    /// # Errors
    /// The file cannot be written, or the limits do not show in the snapshot within 5 s.
    pub fn apply(&mut self, settings: Settings) -> Result<(), ChildError> {
        settings.write(&self.file)?;
        self.signal(libc::SIGHUP);
        let until = Instant::now() + LEAVE_MAX;
        while Instant::now() < until {
            let snapshot = self.snapshot()?;
            let taken = snapshot.pools.iter().any(|pool| {
                pool.name == settings.pool
                    && pool.max == settings.limits.max
                    && pool.min == settings.limits.min
            });
            let rewrites = settings
                .rewrites
                .iter()
                .all(|rewrite| snapshot.rewrites.iter().any(|state| state.id == rewrite.id));
            if taken && rewrites {
                self.settings = settings;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(ChildError::Http("the new settings did not come into force within 5 s".into()))
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: libc::c_int) {
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: kill has no memory effects; the child is not yet reaped, so the id is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(libc::SIGTERM);
        let until = Instant::now() + LEAVE_MAX;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
