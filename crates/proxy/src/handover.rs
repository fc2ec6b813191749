//! What login and the workers hand to each other: sockets that are through their start-up, and the keys that
//! cancel requests name. Nothing here does I/O.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::settings::ServerSettings;
use crate::worker::Guard;

/// A connected, non-blocking socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with TCP_NODELAY set.
    Tcp(std::net::TcpStream),
    /// A Unix-domain stream socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A pool's place in `Settings::pools`; it never changes while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(pub u16);

impl PoolIndex {
    /// The index as a slice index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a client was given in BackendKeyData. The secret is random; the pid only needs to be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The "process id" that the client was told.
    pub pid: i32,
    /// The secret that proves the cancel request comes from that client.
    pub secret: [u8; 4],
}

/// What PostgreSQL gave in BackendKeyData. The secret has 4 bytes in protocol 3.0, up to 256 in 3.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendKey {
    /// The backend's process id.
    pub pid: i32,
    /// The backend's secret.
    pub secret: Vec<u8>,
}

/// One place of the client limit; dropping it frees the place.
#[derive(Debug)]
pub struct ClientPermit {
    places: Arc<ClientPlaces>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts the clients against the client limit.
#[derive(Debug)]
pub struct ClientPlaces {
    taken: AtomicU32,
    max: AtomicU32,
}

impl ClientPlaces {
    /// Room for `max` clients.
    #[must_use]
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU32::new(0), max: AtomicU32::new(max) })
    }

    /// A place, or `None` when all are taken.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<ClientPermit> {
        let mut taken = self.taken.load(Ordering::Acquire);
        while taken < self.max.load(Ordering::Acquire) {
            let one_more = taken + 1;
            match self.taken.compare_exchange_weak(taken, one_more, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(ClientPermit { places: Arc::clone(self) }),
                Err(now) => taken = now,
            }
        }
        None
    }

    /// Clients now connected.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }

    /// The limit.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Acquire)
    }

    /// Changes the limit; clients above a lowered one stay.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Release);
    }
}

/// A client that is logged in. It has been sent AuthenticationOk, ParameterStatus, BackendKeyData and
/// ReadyForQuery; the next byte in either direction is the worker's.
#[derive(Debug)]
pub struct NewClient {
    /// Its socket.
    pub socket: Socket,
    /// Where it comes from, for the console: `address:port`, or `unix`.
    pub peer: String,
    /// The pool it uses.
    pub pool: PoolIndex,
    /// The user it logged in as.
    pub user: String,
    /// The database name it asked for.
    pub database: String,
    /// Settings of its start-up packet, in its order; restored on servers.
    pub parameters: Vec<(String, String)>,
    /// Bytes it sent behind the start-up that were read already.
    pub received: Vec<u8>,
    /// What it was given to cancel with.
    pub cancel: CancelKey,
    /// It keeps one server until it leaves.
    pub session_mode: bool,
    /// Its place in the client limit.
    pub permit: ClientPermit,
}

/// A server connection that is logged in and idle.
#[derive(Debug)]
pub struct NewServer {
    /// Its socket.
    pub socket: Socket,
    /// Its ParameterStatus messages, in order.
    pub parameters: Vec<(String, String)>,
    /// What cancels its query.
    pub key: BackendKey,
    /// From the connect call to ReadyForQuery, in microseconds.
    pub connect_us: u64,
    /// Bytes read behind ReadyForQuery (a notice, rarely).
    pub received: Vec<u8>,
    /// PostgreSQL's limits of connections, where they were asked for.
    pub facts: Option<stats::ServerFacts>,
}

/// Why a server connection could not be had: PostgreSQL's own words where it said some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectFault {
    /// SQLSTATE: PostgreSQL's, or 08001 (cannot connect), 08P01 (protocol), 28000 (cannot authenticate).
    pub sqlstate: [u8; 5],
    /// One line for the client, without secrets.
    pub message: String,
}

impl ConnectFault {
    /// A fault of our own.
    pub fn new(sqlstate: &[u8; 5], message: impl Into<String>) -> Self {
        Self { sqlstate: *sqlstate, message: message.into() }
    }

    /// True when trying again is no use until somebody changes something: a wrong password or database, or no
    /// PostgreSQL at that address. The others (refused, starting up, too many connections) may pass.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(&self.sqlstate, b"3D000" | b"42501" | b"08P01" | b"0A000")
            || self.sqlstate.starts_with(b"28")
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match &self.sqlstate {
            b"28P01" | b"28000" => {
                "Check user and password in the pool's `server` setting, and pg_hba.conf on the server."
            }
            b"3D000" => "Create the database, or correct its name in the pool's `server` setting.",
            b"42501" => "GRANT CONNECT on the database to the user of the pool's `server` setting.",
            b"53300" => {
                "Lower `max` of the pools, or raise max_connections of PostgreSQL; Poolwright keeps trying."
            }
            b"57P03" => "PostgreSQL is starting up, shutting down or recovering; Poolwright keeps trying.",
            b"08P01" | b"0A000" => "Check host and port in the pool's `server` setting.",
            _ => "Check that PostgreSQL runs and accepts connections there; Poolwright keeps trying.",
        }
    }

    /// The SQLSTATE as text.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        std::str::from_utf8(&self.sqlstate).unwrap_or("08001")
    }
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate())
    }
}

impl std::error::Error for ConnectFault {}

/// Opens server connections for the workers, off their threads. The answer comes back through
/// `Workers::server_opened`.
pub trait Opener: Send + Sync + 'static {
    /// Starts to open a server for `slot` of `pool`; returns at once.
    fn open(&self, pool: PoolIndex, slot: pool::ServerId);
}

/// Where a cancel request goes. Found by `Workers::cancel`.
pub enum CancelTarget {
    /// To this server; it is not lent again until `guard` is gone.
    Server {
        /// Where the server is.
        settings: Arc<ServerSettings>,
        /// What cancels its query.
        key: BackendKey,
        /// To be told when PostgreSQL has closed the cancel connection.
        guard: Guard,
    },
    /// The client was waiting; it has left the queue with SQLSTATE 57014.
    Queued,
    /// Nothing runs for that key.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let permanent = |code: &[u8; 5]| ConnectFault::new(code, "").is_permanent();
        for code in [b"28P01", b"28000", b"3D000", b"42501", b"08P01", b"0A000"] {
            assert!(permanent(code));
        }
        for code in [b"08001", b"08006", b"57P03", b"57P01", b"53300", b"53200", b"58000", b"XX000"] {
            assert!(!permanent(code));
        }
    }
}
