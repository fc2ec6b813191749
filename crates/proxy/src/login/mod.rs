//! A client's way in: start-up packet, authentication, parameters, ReadyForQuery; then the worker has it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::handover::{CancelKey, ClientPlaces, ConnectFault, NewClient, PoolIndex};
use crate::settings::{Mode, PoolSettings, Settings};
use crate::worker::Workers;

mod authenticate;
pub mod connection;
mod scram;
pub mod server;
mod startup;

use connection::{Connection, Stream};
use startup::{Request, Startup};

/// How long a failed attempt to reach a server answers for the clients behind it: the pause between attempts.
const FAULT_KEPT: Duration = Duration::from_millis(500);
/// What is left of `login_timeout` to say why, when the server cannot be reached.
const FAREWELL: Duration = Duration::from_millis(200);

type Parameters = Arc<Vec<(String, String)>>;

/// What a pool's servers said of themselves last.
#[derive(Default)]
struct Known {
    parameters: Option<Parameters>,
    fault: Option<(Instant, ConnectFault)>,
}

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
    pub(crate) fn new(settings: Arc<Settings>, workers: Arc<Workers>) -> Self {
        Self {
            known: settings.pools.iter().map(|_| Mutex::default()).collect(),
            asking: settings.pools.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            places: ClientPlaces::new(settings.client_max),
            settings: RwLock::new(settings),
            workers,
            rejections: Mutex::default(),
            draining: tokio::sync::watch::Sender::new(false),
            verifiers: Mutex::default(),
            mock_seed: rand::random(),
            next_pid: AtomicI32::new(1),
        }
    }

    /// Takes a fresh connection through log-in, within `login_timeout`.
    pub(crate) async fn client(self: Arc<Self>, stream: Stream) {
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
            Ok(Ok(Some(ready))) => return self.hand_over(connection, ready),
            Ok(Ok(None)) => return,
            Ok(Err(fault)) => fault,
            Err(_elapsed) => Refusal::new("08006", "timeout", "log-in took too long").into(),
        };
        let (code, message, reason, hint) = match &outcome {
            Fault::Refused(refusal) => (refusal.code, refusal.message.as_str(), refusal.reason, None),
            Fault::Server(fault) => (fault.sqlstate(), fault.message.as_str(), "server", Some(fault.hint())),
            Fault::Gone => return,
        };
        *self.rejections.lock().entry(reason.to_owned()).or_default() += 1;
        tracing::info!(code, reason, "client refused: {message}");
        let mut out = Vec::new();
        let reply = wire::craft::ErrorReply { severity: "FATAL", code, message, detail: None, hint };
        wire::craft::error(&mut out, &reply);
        let _gone = tokio::time::timeout(Duration::from_secs(1), connection.send(&out)).await;
    }

    /// `None`: a cancel request, done with.
    async fn greet(&self, connection: &mut Connection) -> Result<Option<NewClientHead>, Fault> {
        let startup = match startup::read(connection).await? {
            Request::Cancel(key) => {
                crate::cancel::deliver(&self.workers, key).await;
                return Ok(None);
            }
            Request::Startup(startup) => startup,
        };
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
        let user = authenticate::client(self, connection, method, judge, &startup.user).await?;
        let Some((index, pool)) = pool else {
            return Err(unknown_database(&settings, &startup).into());
        };
        let mut out = Vec::new();
        wire::craft::frame(&mut out, b'R', |out| out.extend_from_slice(&[0; 4]));
        let server = self.server_parameters(index, pool).await.map_err(Fault::Server)?;
        tell_parameters(&mut out, &server, &startup);
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
        Ok(Some(NewClientHead {
            pool: index,
            user,
            startup,
            cancel,
            session_mode: pool.mode == Mode::Session,
            permit,
        }))
    }

    fn hand_over(&self, connection: Connection, head: NewClientHead) {
        match connection.into_parts() {
            Ok((socket, received)) => self.workers.add_client(NewClient {
                socket,
                received,
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

    /// The parameters of the pool's servers; opens one to ask when none is known yet. A fault that may pass is
    /// waited out for `acquire_timeout`, as by a client that waits for a server.
    async fn server_parameters(
        &self,
        index: PoolIndex,
        pool: &PoolSettings,
    ) -> Result<Parameters, ConnectFault> {
        let login_timeout = self.settings.read().login_timeout.saturating_sub(FAREWELL);
        let patience = match pool.acquire_timeout {
            Duration::ZERO => login_timeout,
            some => some.min(login_timeout),
        };
        let deadline = Instant::now() + patience;
        loop {
            let asked = tokio::time::timeout_at(deadline.into(), self.ask_server(index, pool)).await;
            let fault = match asked {
                Ok(Ok(parameters)) => return Ok(parameters),
                Ok(Err(fault)) => fault,
                Err(_elapsed) => self.last_fault(index, pool, patience),
            };
            if fault.is_permanent() || Instant::now() + FAULT_KEPT >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(FAULT_KEPT).await;
        }
    }

    /// One attempt, whose outcome also answers for others.
    async fn ask_server(&self, index: PoolIndex, pool: &PoolSettings) -> Result<Parameters, ConnectFault> {
        let _first = self.asking[index.index()].lock().await;
        {
            let known = self.known[index.index()].lock();
            if let Some(parameters) = &known.parameters {
                return Ok(Arc::clone(parameters));
            }
            if let Some((at, fault)) = &known.fault
                && at.elapsed() < FAULT_KEPT
            {
                return Err(fault.clone());
            }
        }
        let result = server::connect(&pool.server).await;
        let mut known = self.known[index.index()].lock();
        match result {
            Ok(server) => {
                let parameters = Arc::new(server.parameters);
                known.parameters = Some(Arc::clone(&parameters));
                Ok(parameters)
            }
            Err(fault) => {
                known.fault = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Why there was no answer in time.
    fn last_fault(&self, index: PoolIndex, pool: &PoolSettings, patience: Duration) -> ConnectFault {
        let known = self.known[index.index()].lock().fault.clone();
        known.map(|(_, fault)| fault).unwrap_or_else(|| {
            let address = &pool.server.address;
            let seconds = patience.as_secs_f64();
            let text = format!("could not connect to PostgreSQL at {address}: no answer within {seconds} s");
            ConnectFault::new(b"08001", text)
        })
    }

    /// Notes what a server that was opened for a worker said.
    pub(crate) fn learn(&self, index: PoolIndex, parameters: &[(String, String)]) {
        let mut known = self.known[index.index()].lock();
        known.parameters = Some(Arc::new(parameters.to_vec()));
        known.fault = None;
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
