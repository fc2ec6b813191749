//! A client's way in: start-up packet, authentication, parameters, ReadyForQuery; then the worker has it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use crate::console;
use crate::handover::{CancelKey, ClientPlaces, ConnectFault, NewClient, PoolIndex};
use crate::settings::{AuthMethod, Mode, Settings};
use crate::worker::Workers;

mod authenticate;
pub mod connection;
mod known;
mod scram;
pub mod server;
mod startup;

use connection::{Connection, Stream};
use known::Known;
use startup::{Request, Startup};

/// What all log-ins share.
pub struct Login {
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) places: Arc<ClientPlaces>,
    pub(crate) rejections: Mutex<BTreeMap<String, u64>>,
    known: Vec<Mutex<Known>>,
    /// Held by the log-in that asks a pool's server.
    asking: Vec<tokio::sync::Mutex<()>>,
    /// True once the pooler drains: nobody new is let in, however far the log-in has come.
    pub(crate) draining: tokio::sync::watch::Sender<bool>,
    pub(crate) events: Mutex<Vec<stats::Event>>,
    pub(crate) started: Instant,
    /// To the program, from consoles.
    pub(crate) requests: mpsc::Sender<console::Request>,
    consoles: Arc<ClientPlaces>,
    verifiers: Mutex<HashMap<String, Arc<scram::Verifier>>>,
    mock_seed: [u8; 32],
    next_pid: AtomicI32,
}

/// Why a client was sent away: FATAL with this SQLSTATE and message.
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
    /// Label of `client_rejections`.
    reason: &'static str,
}

impl Refusal {
    fn new(code: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason }
    }
}

enum Fault {
    Refused(Refusal),
    Server(ConnectFault),
    Gone,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            Self::Refused(Refusal::new("08P01", "protocol", error.to_string()))
        } else {
            Self::Gone
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Login {
    pub(crate) fn new(
        settings: Arc<Settings>,
        workers: Arc<Workers>,
        requests: mpsc::Sender<console::Request>,
    ) -> Self {
        Self {
            known: settings.pools.iter().map(|_| Mutex::default()).collect(),
            asking: settings.pools.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            places: ClientPlaces::new(settings.client_max),
            settings: RwLock::new(settings),
            workers,
            rejections: Mutex::default(),
            draining: tokio::sync::watch::Sender::new(false),
            events: Mutex::default(),
            started: Instant::now(),
            requests,
            consoles: ClientPlaces::new(console::SESSIONS_MAX),
            verifiers: Mutex::default(),
            mock_seed: rand::random(),
            next_pid: AtomicI32::new(1),
        }
    }

    /// Takes a fresh connection through log-in, within `login_timeout`.
    pub(crate) async fn client(self: Arc<Self>, stream: Stream, peer: String) {
        let limit = self.settings.read().login_timeout;
        let mut connection = Connection::new(stream);
        let mut draining = self.draining.subscribe();
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(limit, self.greet(&mut connection)) => greeted,
            _ = draining.wait_for(|draining| *draining) => {
                Ok(Err(Refusal::new("57P03", "draining", "the pooler is shutting down").into()))
            }
        };
        let outcome = match greeted {
            Ok(Ok(Greeted::Client(ready))) => return self.hand_over(connection, ready, peer),
            Ok(Ok(Greeted::Console { user, role, place })) => {
                let who = console::Administrator { user, role, peer };
                console::Session::new(&self, &mut connection, who).serve().await;
                return drop(place);
            }
            Ok(Ok(Greeted::Done)) => return,
            Ok(Err(fault)) => fault,
            Err(_elapsed) => Refusal::new("08006", "timeout", "log-in took too long").into(),
        };
        let (code, message, reason, hint) = match &outcome {
            Fault::Refused(refusal) => (refusal.code, refusal.message.as_str(), refusal.reason, None),
            Fault::Server(fault) => (fault.sqlstate(), fault.message.as_str(), "server", Some(fault.hint())),
            Fault::Gone => return,
        };
        *self.rejections.lock().entry(reason.to_owned()).or_default() += 1;
        tracing::info!(code, reason, %peer, "client refused: {message}");
        let mut out = Vec::new();
        let reply = wire::craft::ErrorReply { severity: "FATAL", code, message, detail: None, hint };
        wire::craft::error(&mut out, &reply);
        let _gone = tokio::time::timeout(Duration::from_secs(1), connection.send(&out)).await;
    }

    async fn greet(&self, connection: &mut Connection) -> Result<Greeted, Fault> {
        let startup = match startup::read(connection).await? {
            Request::Cancel(key) => {
                crate::cancel::deliver(&self.workers, key).await;
                return Ok(Greeted::Done);
            }
            Request::Startup(startup) => startup,
        };
        if console::NAMES.contains(&startup.database.as_str()) {
            return self.greet_administrator(connection, startup).await;
        }
        let permit = self.places.take().ok_or_else(|| {
            Refusal::new("53300", "limit", format!("client limit of {} is reached", self.places.max()))
        })?;
        let settings = Arc::clone(&self.settings.read());
        let pool = settings.pool_named(&startup.database);
        let method = settings.auth;
        // Who asks for an unknown database proves a password of another pool before hearing which there are.
        let judge = pool.map(|(_, pool)| pool).or_else(|| {
            settings.pools.iter().find(|pool| {
                pool.server.user == startup.user || pool.users.iter().any(|user| user.name == startup.user)
            })
        });
        let password = judge.and_then(|pool| pool.password_of(&startup.user));
        if method == AuthMethod::Trust {
            authenticate::trusted(judge.is_some(), password, &startup.user)?;
        } else {
            authenticate::prove(self, connection, method, password, &startup.user).await?;
        }
        let user = startup.user.clone();
        let Some((index, pool)) = pool else {
            return Err(unknown_database(&settings, &startup).into());
        };
        let server = self.server_parameters(index, pool).await.map_err(Fault::Server)?;
        let cancel = self.welcome(connection, &server, &startup).await?;
        let session_mode = pool.mode == Mode::Session;
        Ok(Greeted::Client(NewClientHead { pool: index, user, startup, cancel, session_mode, permit }))
    }

    /// Consoles prove a password even where clients are trusted.
    async fn greet_administrator(
        &self,
        connection: &mut Connection,
        startup: Startup,
    ) -> Result<Greeted, Fault> {
        let place = self.consoles.take().ok_or_else(|| {
            let text = format!("limit of {} consoles is reached", self.consoles.max());
            Refusal::new("53300", "limit", text)
        })?;
        let settings = Arc::clone(&self.settings.read());
        let method = if settings.auth == AuthMethod::Md5 { AuthMethod::Md5 } else { AuthMethod::Scram };
        let known = settings.console.role_of(&startup.user, &settings.pools);
        let password = known.map(|(_, password)| password);
        authenticate::prove(self, connection, method, password, &startup.user).await?;
        let role = known.map_or(console::Role::Viewer, |(role, _)| role);
        self.welcome(connection, &console::parameters(role, &startup.user), &startup).await?;
        Ok(Greeted::Console { user: startup.user, role, place })
    }

    /// AuthenticationOk to ReadyForQuery.
    async fn welcome(
        &self,
        connection: &mut Connection,
        server: &[(String, String)],
        startup: &Startup,
    ) -> Result<CancelKey, Fault> {
        let mut out = Vec::new();
        wire::craft::frame(&mut out, b'R', |out| out.extend_from_slice(&[0; 4]));
        tell_parameters(&mut out, server, startup);
        let cancel = CancelKey {
            pid: self.next_pid.fetch_add(1, Ordering::Relaxed) & i32::MAX,
            secret: rand::random(),
        };
        wire::craft::frame(&mut out, b'K', |out| {
            out.extend_from_slice(&cancel.pid.to_be_bytes());
            out.extend_from_slice(&cancel.secret);
        });
        wire::craft::ready(&mut out, b'I');
        connection.send(&out).await?;
        Ok(cancel)
    }

    fn hand_over(&self, connection: Connection, head: NewClientHead, peer: String) {
        match connection.into_parts() {
            Ok((socket, received)) => self.workers.add_client(NewClient {
                socket,
                received,
                peer,
                pool: head.pool,
                user: head.user,
                database: head.startup.database,
                parameters: head.startup.parameters,
                cancel: head.cancel,
                session_mode: head.session_mode,
                permit: head.permit,
            }),
            Err(error) => tracing::warn!("a client's socket cannot be handed over: {error}"),
        }
    }

    fn verifier(&self, password: &str) -> Arc<scram::Verifier> {
        if let Some(known) = self.verifiers.lock().get(password) {
            return Arc::clone(known);
        }
        let made = scram::Verifier::parse(password)
            .unwrap_or_else(|| scram::Verifier::from_password(password, rand::random()));
        Arc::clone(self.verifiers.lock().entry(password.to_owned()).or_insert_with(|| Arc::new(made)))
    }
}

/// How a log-in ended well.
enum Greeted {
    Client(NewClientHead),
    Console {
        user: String,
        role: console::Role,
        place: crate::handover::ClientPermit,
    },
    /// A cancel request, done with.
    Done,
}

struct NewClientHead {
    pool: PoolIndex,
    user: String,
    startup: Startup,
    cancel: CancelKey,
    session_mode: bool,
    permit: crate::handover::ClientPermit,
}

/// ParameterStatus for each of the server's, the client's own start-up values laid over.
fn tell_parameters(out: &mut Vec<u8>, server: &[(String, String)], startup: &Startup) {
    for (name, value) in server {
        let own = startup.parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = match name.as_str() {
            "session_authorization" => &startup.user,
            _ => own.map_or(value, |(_, value)| value),
        };
        wire::craft::parameter_status(out, name, value);
    }
}

fn unknown_database(settings: &Settings, startup: &Startup) -> Refusal {
    let names: Vec<_> = settings.pools.iter().take(8).map(|pool| pool.name.as_str()).collect();
    let message =
        format!("database \"{}\" is not served here; pools: {}", startup.database, names.join(", "));
    Refusal::new("3D000", "database", message)
}
