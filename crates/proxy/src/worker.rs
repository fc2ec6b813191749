//! The event loops. Stands in until the data path arrives; these names are what login and lifecycle call.

use std::io;
use std::sync::Arc;

use crate::handover::{CancelKey, CancelTarget, ConnectFault, NewClient, NewServer, Opener, PoolIndex};
use crate::settings::Settings;

/// What the workers start from.
pub struct Shared {
    /// Limits and pools.
    pub settings: Arc<Settings>,
    /// Opens servers.
    pub opener: Arc<dyn Opener>,
}

/// The worker threads.
pub struct Workers;

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or an event queue cannot be had.
    pub fn start(_shared: Arc<Shared>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self))
    }
    /// Takes a client over.
    pub fn add_client(&self, _client: NewClient) {}
    /// The answer to `Opener::open`.
    pub fn server_opened(
        &self,
        _pool: PoolIndex,
        _slot: pool::ServerId,
        _result: Result<NewServer, ConnectFault>,
    ) {
    }
    /// Where a cancel request goes.
    pub fn cancel(&self, _key: CancelKey) -> CancelTarget {
        CancelTarget::Nothing
    }
    /// New limits, time-outs and rewrites; the pools are the same ones in the same order.
    pub fn apply(&self, _settings: Arc<Settings>) {}
    /// Counters and gauges of all pools, without those of login and process.
    pub fn snapshot(&self) -> stats::Snapshot {
        stats::Snapshot::default()
    }
    /// PAUSE (true) or RESUME (false) of the console.
    pub fn pause(&self, _pool: PoolIndex, _paused: bool) {}
    /// Idle clients are closed with 57P01, the others when their transaction ends.
    pub fn drain(&self) {}
    /// Clients still connected.
    pub fn clients(&self) -> u32 {
        0
    }
    /// Closes everything and ends the threads.
    pub fn stop(&self) {}
}
