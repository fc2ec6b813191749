//! Cancel requests that Poolwright sends of its own accord (query time-out), off the data path.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use super::{
    clockwork::error,
    state::{Phase, State},
};
use crate::handover::{BackendKey, CancelKey, CancelTarget};
use crate::settings::{ServerAddress, ServerSettings};

/// Longest a cancel may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends it on a thread of its own and waits for PostgreSQL to close the connection; `guard` lives as long.
pub(super) fn send(settings: ServerSettings, key: BackendKey, guard: Guard) {
    let work = move || {
        if let Err(error) = request(&settings, &key) {
            tracing::warn!(%error, "a cancel request failed");
        }
        drop(guard);
    };
    if let Err(error) = std::thread::Builder::new().name("cancel".into()).spawn(work) {
        tracing::warn!(%error, "no thread for a cancel request");
    }
}

fn request(settings: &ServerSettings, key: &BackendKey) -> std::io::Result<()> {
    let mut packet = Vec::with_capacity(16);
    packet.extend_from_slice(&(12 + key.secret.len() as u32).to_be_bytes());
    packet.extend_from_slice(&80_877_102u32.to_be_bytes());
    packet.extend_from_slice(&key.pid.to_be_bytes());
    packet.extend_from_slice(&key.secret);
    let mut end = [0; 1];
    match &settings.address {
        ServerAddress::Tcp { host, port } => {
            let mut socket = std::net::TcpStream::connect((host.as_str(), *port))?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.write_all(&packet)?;
            socket.read(&mut end).map(|_| ())
        }
        ServerAddress::Unix(path) => {
            let mut socket = std::os::unix::net::UnixStream::connect(path)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.write_all(&packet)?;
            socket.read(&mut end).map(|_| ())
        }
    }
}

impl State {
    pub(super) fn cancel(&mut self, key: CancelKey) -> Option<CancelTarget> {
        let at = *self.cancels.get(&key)?;
        let client = self.clients[at].as_ref()?;
        let index = client.pool;
        match client.phase {
            Phase::Idle => Some(CancelTarget::Nothing),
            Phase::Waiting(ticket) => {
                if let Some(pool) = self.pools[index].as_mut() {
                    pool.pool.cancel(ticket);
                    pool.acquires[3] += 1;
                }
                self.refuse(at, &error("57014", "canceling statement due to user request"));
                Some(CancelTarget::Queued)
            }
            Phase::Linked(server) => {
                let server = self.servers[server].as_ref()?;
                let settings = Arc::new(self.pools[index].as_ref()?.settings.server.clone());
                let guard = Guard::new(&server.guard, &self.waker);
                Some(CancelTarget::Server { settings, key: server.key.clone(), guard: Box::new(guard) })
            }
        }
    }
}

/// Keeps a server from being lent while a cancel is on its way; wakes the worker at the end.
pub(super) struct Guard {
    mark: Option<Arc<()>>,
    waker: Arc<Waker>,
}

impl Guard {
    pub(super) fn new(mark: &Arc<()>, waker: &Arc<Waker>) -> Self {
        Self { mark: Some(Arc::clone(mark)), waker: Arc::clone(waker) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.mark = None;
        // Without it the next tick finds the server.
        let _ = self.waker.wake();
    }
}
