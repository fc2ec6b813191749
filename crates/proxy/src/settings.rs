//! The data plane's settings: plain, typed, complete. Files, defaults from text and `${VAR}` are the program's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where PostgreSQL listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A host name or address, and a port.
    Tcp {
        /// Name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The socket file (`/run/postgresql/.s.PGSQL.5432`).
    Unix(PathBuf),
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where clients are awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket file.
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How long a client keeps its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Until the end of its transaction.
    #[default]
    Transaction,
    /// Until it leaves.
    Session,
}

impl Mode {
    /// The name in files, metrics and the console.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    #[default]
    Scram,
    /// MD5, for old drivers.
    Md5,
    /// Nobody is asked. Never a default.
    Trust,
}

/// Everything needed to open one server connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where PostgreSQL listens.
    pub address: ServerAddress,
    /// The database on the server.
    pub database: String,
    /// The user on the server.
    pub user: String,
    /// Its password; empty when none is needed.
    pub password: String,
    /// From the connect call to ReadyForQuery.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.address, self.database)
    }
}

/// A user that clients of a pool may log in as.
#[derive(Clone, PartialEq, Eq)]
pub struct UserSettings {
    /// Its name.
    pub name: String,
    /// A password in clear text, `md5…` or `SCRAM-SHA-256$…` as in pg_authid.
    pub password: String,
}

impl std::fmt::Debug for UserSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserSettings({})", self.name)
    }
}

/// A query that is replaced on its way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Its name in console and metrics.
    pub id: String,
    /// The full normalised text that it matches.
    pub original: String,
    /// What is sent instead; parameters as in `original`.
    pub replacement: String,
    /// It returns the same rows.
    pub same_rows: bool,
    /// Type OIDs of the parameters with which it was proven. A Parse that declares others is left alone; without any
    /// here, a Parse that declares any.
    pub parameter_types: Vec<u32>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The database name that clients ask for.
    pub name: String,
    /// The servers.
    pub server: ServerSettings,
    /// Most servers at once.
    pub max: u32,
    /// Servers kept open and warm.
    pub min: u32,
    /// An idle server above `min` closes after this. Zero: never.
    pub idle_timeout: Duration,
    /// A statement is cancelled after this, from its sending. Zero: never.
    pub query_timeout: Duration,
    /// A waiting client gets SQLSTATE 53300 after this. Zero: never.
    pub acquire_timeout: Duration,
    /// A server closes at this age (with jitter) when it comes back. Zero: never.
    pub lifetime: Duration,
    /// A client idle in a transaction this long loses its server. Zero: never.
    pub idle_in_transaction_timeout: Duration,
    /// Transaction or session mode.
    pub mode: Mode,
    /// Who may log in. Empty: the user and password of `server`.
    pub users: Vec<UserSettings>,
    /// Live rewrites.
    pub rewrites: Vec<Rewrite>,
    /// Prepared statements remembered per client.
    pub statements_per_client: usize,
    /// Prepared statements kept on one server; the oldest are closed beyond it.
    pub statements_per_server: usize,
}

impl PoolSettings {
    /// A pool with the product's defaults: 5 to 15 servers, transaction mode.
    #[must_use]
    pub fn new(name: impl Into<String>, server: ServerSettings) -> Self {
        Self {
            name: name.into(),
            server,
            max: 15,
            min: 5,
            idle_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(5),
            lifetime: Duration::from_secs(3600),
            idle_in_transaction_timeout: Duration::ZERO,
            mode: Mode::Transaction,
            users: Vec::new(),
            rewrites: Vec::new(),
            statements_per_client: 1_000,
            statements_per_server: 500,
        }
    }

    /// The password with which `user` logs in as a client; `None`: it may not.
    pub(crate) fn password_of(&self, user: &str) -> Option<&str> {
        if self.users.is_empty() {
            (self.server.user == user).then_some(self.server.password.as_str())
        } else {
            self.users.iter().find(|known| known.name == user).map(|known| known.password.as_str())
        }
    }

    /// What the `pool` crate counts with.
    #[must_use]
    pub fn limits(&self) -> pool::Limits {
        pool::Limits {
            max: self.max,
            min: self.min,
            idle_timeout_us: micros(self.idle_timeout),
            acquire_timeout_us: micros(self.acquire_timeout),
            lifetime_us: micros(self.lifetime),
        }
    }
}

/// A duration in whole microseconds.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Who may use the console. With both lists empty, the users of the pools' `server` settings may look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// They may do everything.
    pub admins: Vec<UserSettings>,
    /// They may SHOW.
    pub viewers: Vec<UserSettings>,
}

impl ConsoleSettings {
    /// What `user` may do on the console, and the password that proves it.
    pub(crate) fn role_of<'a>(
        &'a self,
        user: &str,
        pools: &'a [PoolSettings],
    ) -> Option<(crate::console::Role, &'a str)> {
        use crate::console::Role;
        let listed = |users: &'a [UserSettings], role| {
            users.iter().find(|known| known.name == user).map(|known| (role, known.password.as_str()))
        };
        listed(&self.admins, Role::Admin).or_else(|| listed(&self.viewers, Role::Viewer)).or_else(|| {
            let nobody = self.admins.is_empty() && self.viewers.is_empty();
            let owner = pools.iter().map(|pool| &pool.server).find(|server| nobody && server.user == user);
            owner.map(|server| (Role::Viewer, server.password.as_str()))
        })
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where clients are awaited.
    pub listen: Vec<ListenAddress>,
    /// Most clients at once.
    pub client_max: u32,
    /// Worker threads.
    pub workers: usize,
    /// How clients prove who they are.
    pub auth: AuthMethod,
    /// A client must be logged in within this time.
    pub login_timeout: Duration,
    /// Who may use the console.
    pub console: ConsoleSettings,
    /// The pools; at most 65,535.
    pub pools: Vec<PoolSettings>,
}

impl Settings {
    /// The pool that serves `database`.
    #[must_use]
    pub fn pool_named(&self, database: &str) -> Option<(crate::PoolIndex, &PoolSettings)> {
        let at = self.pools.iter().position(|pool| pool.name == database)?;
        Some((crate::PoolIndex(u16::try_from(at).ok()?), &self.pools[at]))
    }
}
