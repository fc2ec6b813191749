//! Cancel requests that Poolwright sends of its own accord (query time-out), off the data path.

use std::io::{ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    let work = move || match request(&settings, &key) {
        Ok(()) => guard.delivered(),
        Err(error) => tracing::warn!(%error, "a cancel request failed"),
    };
    if let Err(error) = std::thread::Builder::new().name("cancel".into()).spawn(work) {
        tracing::warn!(%error, "no thread for a cancel request");
    }
}

/// Err: it was sent, perhaps, and may still take effect.
fn request(settings: &ServerSettings, key: &BackendKey) -> std::io::Result<()> {
    let mut packet = Vec::with_capacity(16);
    packet.extend_from_slice(&(12 + key.secret.len() as u32).to_be_bytes());
    packet.extend_from_slice(&80_877_102u32.to_be_bytes());
    packet.extend_from_slice(&key.pid.to_be_bytes());
    packet.extend_from_slice(&key.secret);
    let mut end = [0; 1];
    let told = match &settings.address {
        ServerAddress::Tcp { host, port } => {
            let connected = (host.as_str(), *port)
                .to_socket_addrs()
                .and_then(|mut all| all.next().ok_or_else(|| ErrorKind::NotFound.into()))
                .and_then(|address| std::net::TcpStream::connect_timeout(&address, LIMIT));
            let Some(mut socket) = reached(connected) else { return Ok(()) };
            socket.set_read_timeout(Some(LIMIT))?;
            socket.write_all(&packet)?;
            socket.read(&mut end)
        }
        ServerAddress::Unix(path) => {
            let Some(mut socket) = reached(std::os::unix::net::UnixStream::connect(path)) else {
                return Ok(());
            };
            socket.set_read_timeout(Some(LIMIT))?;
            socket.write_all(&packet)?;
            socket.read(&mut end)
        }
    };
    match told {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(()),
    }
}

/// The connection; without one nothing is on its way.
fn reached<T>(connected: std::io::Result<T>) -> Option<T> {
    connected.map_err(|error| tracing::warn!(%error, "PostgreSQL is out of a cancel request's reach")).ok()
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
                Some(CancelTarget::Server { settings, key: server.key.clone(), guard })
            }
        }
    }
}

/// Keeps a server from being lent while a cancel is on its way; wakes the worker at the end. Dropped without
/// [`Guard::delivered`] it leaves the server in doubt: it is closed instead of lent again.
pub struct Guard {
    mark: Option<Arc<AtomicBool>>,
    waker: Arc<Waker>,
}

impl Guard {
    pub(super) fn new(mark: &Arc<AtomicBool>, waker: &Arc<Waker>) -> Self {
        Self { mark: Some(Arc::clone(mark)), waker: Arc::clone(waker) }
    }

    /// PostgreSQL has closed the cancel connection, or it was never made: no signal can come any more.
    pub fn delivered(mut self) {
        self.mark = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            mark.store(true, Ordering::Release);
        }
        // Without it the next tick finds the server.
        let _ = self.waker.wake();
    }
}
