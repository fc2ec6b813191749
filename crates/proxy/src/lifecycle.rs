//! The whole data plane: start, reload, drain, stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::handover::{Opener, PoolIndex};
use crate::login::connection::Stream;
use crate::login::{Login, server};
use crate::settings::{ListenAddress, Settings, micros};
use crate::worker::{Shared, Workers};

/// Events kept for metrics and charts; the oldest go first.
const EVENTS_MAX: usize = 256;

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
    started: Instant,
    addresses: Vec<ListenAddress>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    events: Mutex<Vec<stats::Event>>,
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
        let login = Arc::new(Login::new(settings, workers));
        let mut tasks = vec![tokio::spawn(open_servers(Arc::clone(&login), wanted))];
        let mut addresses = Vec::new();
        for listener in listeners {
            addresses.push(listener.address());
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&login))));
        }
        Ok(Self {
            login,
            started: Instant::now(),
            addresses,
            tasks: Mutex::new(tasks),
            events: Mutex::default(),
        })
    }

    /// The addresses really listened on (a port 0 filled in).
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.addresses.clone()
    }

    /// All counters now. Takes a few milliseconds; not for the data path.
    #[must_use]
    pub fn snapshot(&self) -> stats::Snapshot {
        let mut snapshot = self.login.workers.snapshot();
        snapshot.taken_unix_us = unix_us();
        snapshot.uptime_us = micros(self.started.elapsed());
        snapshot.events.clone_from(&self.events.lock());
        snapshot.client_connections = u64::from(self.login.places.taken());
        snapshot.client_max = u64::from(self.login.places.max());
        snapshot.client_rejections.clone_from(&self.login.rejections.lock());
        snapshot.process = process();
        snapshot
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.login.settings.read())
    }

    /// Applies limits, time-outs, users and rewrites without dropping a client; says what changed.
    ///
    /// # Errors
    /// When listen addresses, workers or the pools' names or servers differ: that needs a restart. Nothing is
    /// applied then.
    pub fn reload(&self, settings: Settings) -> Result<Vec<String>, StartError> {
        let old = self.settings();
        let restart = |what: &str| Err(StartError::Settings(format!("{what} changed: that needs a restart")));
        if settings.listen != old.listen {
            return restart("listen");
        }
        if settings.workers != old.workers {
            return restart("workers");
        }
        if settings.pools.len() != old.pools.len() {
            return restart("the list of pools");
        }
        let mut changes = Vec::new();
        for (new, old) in settings.pools.iter().zip(&old.pools) {
            if new.name != old.name || new.server != old.server || new.mode != old.mode {
                return restart(&format!("name, server or mode of pool \"{}\"", old.name));
            }
            if new != old {
                changes.push(format!("pool {}: max {} min {}", new.name, new.max, new.min));
            }
        }
        if settings.client_max != old.client_max {
            changes.push(format!("client_max {}", settings.client_max));
        }
        let settings = Arc::new(settings);
        self.login.places.set_max(settings.client_max);
        *self.login.settings.write() = Arc::clone(&settings);
        self.login.workers.apply(settings);
        self.event("reload", &changes.join(", "));
        Ok(changes)
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

    /// Notes an event (a phase, a change) for metrics and charts.
    pub fn event(&self, kind: &str, id: &str) {
        let mut events = self.events.lock();
        if events.len() == EVENTS_MAX {
            events.remove(0);
        }
        events.push(stats::Event { kind: kind.to_owned(), id: id.to_owned(), unix_us: unix_us() });
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
            Listener::Tcp(listener) => listener.accept().await.and_then(|(stream, _)| {
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        match accepted {
            Ok(stream) => drop(tokio::spawn(Arc::clone(&login).client(stream))),
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
            let settings = Arc::clone(&login.settings.read());
            let result = server::connect(&settings.pools[index.index()].server).await;
            if let Ok(server) = &result {
                login.learn(index, &server.parameters);
            }
            login.workers.server_opened(index, slot, result);
        });
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

/// What this process uses, from /proc; zeros where that is not there.
fn process() -> stats::Process {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let kilobytes = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes * 1024)
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    stats::Process {
        rss_bytes: kilobytes(&read("status"), "VmRSS:"),
        pss_bytes: kilobytes(&read("smaps_rollup"), "Pss:"),
        // utime and stime (proc(5) fields 14 and 15) in ticks of 10 ms.
        cpu_us: (ticks(11) + ticks(12)) * 10_000,
        fds: std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64),
    }
}
