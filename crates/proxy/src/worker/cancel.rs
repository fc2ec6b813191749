//! Cancel requests that Poolwright sends of its own accord (query time-out), off the data path.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::handover::BackendKey;
use crate::settings::{ServerAddress, ServerSettings};

/// Longest a cancel may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends it on a thread of its own and waits for PostgreSQL to close the connection; `guard` lives as long.
pub(super) fn send(settings: ServerSettings, key: BackendKey, guard: Arc<()>) {
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
