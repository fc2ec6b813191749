//! The whole data plane: start, reload, drain, stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::console::Request;
use crate::handover::{Opener, PoolIndex};
use crate::login::Login;
use crate::login::connection::Stream;
use crate::reload::Differences;
use crate::settings::{ListenAddress, Settings};
use crate::worker::{Shared, Workers};

/// Requests of consoles that wait for the program.
const REQUESTS_MAX: usize = 4;

/// Most characters of what a reload's event says.
const EVENT_ID_MAX: usize = 64;

/// Why the proxy could not start, or a reload was refused.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The worker threads could not be started.
    #[error("cannot start the workers: {0}")]
    Workers(#[source] io::Error),
    /// The settings contradict themselves, or need a restart.
    #[error("{0}")]
    Settings(String),
}

/// Passes the workers' wishes for servers to tokio.
struct Wishes(mpsc::UnboundedSender<(PoolIndex, pool::ServerId)>);

impl Opener for Wishes {
    fn open(&self, pool: PoolIndex, slot: pool::ServerId) {
        // Fails only while stopping; nobody waits for the server then.
        let _stopping = self.0.send((pool, slot));
    }
}

/// A running data plane. Needs a tokio runtime. Dropping it stops it.
pub struct Proxy {
    login: Arc<Login>,
    addresses: Vec<ListenAddress>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    requests: Mutex<Option<mpsc::Receiver<Request>>>,
}

impl Proxy {
    /// Listens and starts the workers.
    ///
    /// # Errors
    /// When an address is taken or threads cannot be had.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        if settings.pools.is_empty() || settings.pools.len() > usize::from(u16::MAX) {
            return Err(StartError::Settings("between 1 and 65535 pools are needed".to_owned()));
        }
        let mut listeners = Vec::new();
        for address in &settings.listen {
            listeners.push(listen(address).await?);
        }
        let settings = Arc::new(settings);
        let (wishes, wanted) = mpsc::unbounded_channel();
        let shared = Shared { settings: Arc::clone(&settings), opener: Arc::new(Wishes(wishes)) };
        let workers = Workers::start(Arc::new(shared)).map_err(StartError::Workers)?;
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let login = Arc::new(Login::new(settings, workers, requests));
        let mut tasks = vec![tokio::spawn(open_servers(Arc::clone(&login), wanted))];
        let mut addresses = Vec::new();
        for listener in listeners {
            addresses.push(listener.address());
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&login))));
        }
        Ok(Self { login, addresses, tasks: Mutex::new(tasks), requests: Mutex::new(Some(asked)) })
    }

    /// The addresses really listened on (a port 0 filled in).
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.addresses.clone()
    }

    /// All counters now. Takes a few milliseconds; not for the data path.
    #[must_use]
    pub fn snapshot(&self) -> stats::Snapshot {
        self.login.snapshot()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.login.settings.read())
    }

    /// What a reload with these settings would change.
    #[must_use]
    pub fn differences(&self, settings: &Settings) -> Differences {
        Differences::between(&self.settings(), settings)
    }

    /// Applies limits, time-outs, users and rewrites without dropping a client; says what changed.
    ///
    /// # Errors
    /// When something differs that needs a restart; all of it is named. Nothing is applied then.
    pub fn reload(&self, settings: Settings) -> Result<Vec<String>, StartError> {
        let Differences { live, restart } = self.differences(&settings);
        if !restart.is_empty() {
            return Err(StartError::Settings(format!("this needs a restart: {}", restart.join("; "))));
        }
        let settings = Arc::new(settings);
        self.login.places.set_max(settings.client_max);
        *self.login.settings.write() = Arc::clone(&settings);
        self.login.workers.apply(settings);
        let summary: String = live.join(", ").chars().take(EVENT_ID_MAX).collect();
        self.event("reload", &summary);
        Ok(live)
    }

    /// Takes a live rewrite out of use at once, in all pools; false when none of this name was in force. It stays out
    /// until its settings change or the program starts anew.
    pub fn revoke(&self, id: &str) -> bool {
        let found = self.login.workers.revoke(None, id);
        if found {
            self.event("revoke", id);
        }
        found
    }

    /// What consoles ask of the program; `None` after the first call.
    pub fn requests(&self) -> Option<mpsc::Receiver<Request>> {
        self.requests.lock().take()
    }

    /// Notes an event (a phase, a change) for metrics and charts.
    pub fn event(&self, kind: &str, id: &str) {
        self.login.event(kind, id);
    }

    /// Takes no more clients and lets transactions end, for at most `timeout`; true when all clients left.
    pub async fn drain(&self, timeout: Duration) -> bool {
        // The first task opens servers for those who still wait.
        for accepting in self.tasks.lock().iter().skip(1) {
            accepting.abort();
        }
        self.login.draining.send_replace(true);
        self.login.workers.drain();
        let deadline = Instant::now() + timeout;
        while self.login.places.taken() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Closes everything. May be called twice.
    pub fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.login.workers.stop();
        for address in &self.addresses {
            if let ListenAddress::Unix(path) = address {
                let _gone = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn address(&self) -> ListenAddress {
        match self {
            Self::Tcp(listener) => ListenAddress::Tcp(
                listener.local_addr().unwrap_or_else(|_| std::net::SocketAddr::from(([0, 0, 0, 0], 0))),
            ),
            Self::Unix(_, path) => ListenAddress::Unix(path.clone()),
        }
    }
}

async fn listen(address: &ListenAddress) -> Result<Listener, StartError> {
    let listener = match address {
        ListenAddress::Tcp(tcp) => TcpListener::bind(tcp).await.map(Listener::Tcp),
        ListenAddress::Unix(path) => bind_unix(path).map(|listener| Listener::Unix(listener, path.clone())),
    };
    listener.map_err(|source| StartError::Listen { address: address.to_string(), source })
}

/// A socket file that nobody answers on is a leftover, and is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

async fn accept(listener: Listener, login: Arc<Login>) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, peer)) => Stream::tcp(stream).map(|stream| (stream, peer.to_string())),
                Err(error) => Err(error),
            },
            Listener::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), "unix".to_owned()))
            }
        };
        match accepted {
            Ok((stream, peer)) => drop(tokio::spawn(Arc::clone(&login).client(stream, peer))),
            Err(error) => {
                // Out of descriptors, mostly: wait for some to come free.
                tracing::warn!("cannot accept a client: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn open_servers(login: Arc<Login>, mut wanted: mpsc::UnboundedReceiver<(PoolIndex, pool::ServerId)>) {
    while let Some((index, slot)) = wanted.recv().await {
        let login = Arc::clone(&login);
        tokio::spawn(async move {
            let result = login.open(index).await;
            login.workers.server_opened(index, slot, result);
        });
    }
}
