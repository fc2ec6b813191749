//! The administrator's console: what is asked of the databases `pgbouncer` and `poolwright`.
//!
//! ```text
//!   psql, any driver ──▶ log-in ──▶ Session: Query, or Parse/Bind/Describe/Execute
//!                                      ├─▶ show: tables made from a snapshot
//!                                      └─▶ run: PAUSE, REVOKE, …; RELOAD and SHUTDOWN by the program (`Request`)
//! ```
//! It never touches PostgreSQL, so it answers while that is down; and it has places of its own, so it answers when
//! the client limit is reached.

mod columns;
mod command;
mod config;
mod portal;
mod run;
mod show;
mod table;

use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use wire::craft::{self, ErrorReply};

use crate::login::Login;
use crate::login::connection::Connection;
use command::Command;
use portal::Portals;

/// Database names that lead here.
pub(crate) const NAMES: [&str; 2] = ["pgbouncer", "poolwright"];
/// Consoles at a time, beside the client limit.
pub(crate) const SESSIONS_MAX: u32 = 16;
/// A console that does not read its answer for so long is closed.
const SEND_LIMIT: Duration = Duration::from_secs(30);

const VERSION: &str = concat!("Poolwright ", env!("CARGO_PKG_VERSION"));

const HELP: [(&str, &str); 20] = [
    ("SHOW POOLS", "clients, servers and the longest wait of each pool"),
    ("SHOW DATABASES", "where each pool leads"),
    ("SHOW CLIENTS", "every client"),
    ("SHOW SERVERS", "every connection to PostgreSQL"),
    ("SHOW STATS", "totals and percentiles of each pool since the start"),
    ("SHOW FINGERPRINTS", "the 100 fingerprints that took the most server time"),
    ("SHOW REWRITES", "live rewrites and what became of them"),
    ("SHOW EVENTS", "reloads, pauses, phases: what happened last"),
    ("SHOW CONFIG", "every setting; changeable: yes where RELOAD is enough"),
    ("SHOW LISTS", "counts of everything"),
    ("SHOW STATE", "paused, draining, uptime"),
    ("SHOW VERSION", "the version"),
    ("RELOAD", "read the configuration file again, as SIGHUP does"),
    ("PAUSE [pool]", "lend no server from now on; answers when all came back"),
    ("RESUME [pool]", "end the pause"),
    ("REVOKE [pool] id", "take back a live rewrite at once"),
    ("KILL_CLIENT id", "close a client's connection; ids are those of SHOW CLIENTS"),
    ("SHUTDOWN", "stop at once"),
    ("SHUTDOWN WAIT_FOR_SERVERS", "stop when the transactions have ended, as SIGTERM does"),
    ("SHOW HELP", "this list"),
];

/// What the console asks of the program that runs the proxy.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration again; say what changed, or what is wrong.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Stop: at once, or when the transactions have ended.
    Shutdown {
        /// Let the transactions end.
        drain: bool,
    },
}

/// What a user of the console may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// SHOW.
    Viewer,
}

/// Why a command was not carried out.
struct Complaint {
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl Complaint {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: "" }
    }

    fn missing(message: String) -> Self {
        Self::new("42704", message)
    }

    fn syntax(message: String) -> Self {
        Self { hint: "SHOW HELP lists the commands.", ..Self::new("42601", message) }
    }
}

/// Who uses the console.
pub(crate) struct Administrator {
    pub user: String,
    pub peer: String,
    pub role: Role,
}

/// Parameters that drivers look at before their first query. The version is of the SQL dialect that drivers expect.
pub(crate) fn parameters(role: Role, user: &str) -> Vec<(String, String)> {
    let superuser = if role == Role::Admin { "on" } else { "off" };
    let version = format!("14.0 ({VERSION} console)");
    [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", ""),
        ("is_superuser", superuser),
        ("session_authorization", user),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Every setting: key, value, and whether a reload may change it.
pub(crate) fn config_rows(settings: &crate::Settings) -> Vec<(String, String, bool)> {
    let text = |cell: &table::Cell| match cell {
        table::Cell::Text(text) => text.clone(),
        table::Cell::Number(number) => number.to_string(),
        table::Cell::Null => String::new(),
    };
    let row = |row: &table::Row| (text(&row[0]), text(&row[1]), text(&row[3]) == "yes");
    config::rows(settings).iter().map(row).collect()
}

/// One console, from ReadyForQuery to its end.
pub(crate) struct Session<'a> {
    login: &'a Login,
    connection: &'a mut Connection,
    who: Administrator,
    /// `I`, `T` or `E`, as ReadyForQuery has it.
    status: u8,
    portals: Portals,
    /// After an error, messages are skipped until Sync.
    skipping: bool,
    out: Vec<u8>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(login: &'a Login, connection: &'a mut Connection, who: Administrator) -> Self {
        Self {
            login,
            connection,
            who,
            status: b'I',
            portals: Portals::default(),
            skipping: false,
            out: Vec::new(),
        }
    }

    /// Answers until the client leaves.
    pub(crate) async fn serve(mut self) {
        if let Err(error) = self.converse().await
            && error.kind() == io::ErrorKind::InvalidData
        {
            let message = error.to_string();
            let reply =
                ErrorReply { severity: "FATAL", code: "08P01", message: &message, detail: None, hint: None };
            self.out.clear();
            craft::error(&mut self.out, &reply);
            let _gone = self.flush().await;
        }
    }

    async fn converse(&mut self) -> io::Result<()> {
        loop {
            let (kind, body) = self.connection.message().await?;
            match kind {
                b'X' => return Ok(()),
                b'S' => {
                    self.skipping = false;
                    if self.status == b'I' {
                        self.portals.end_transaction();
                    }
                    craft::ready(&mut self.out, self.status);
                    self.flush().await?;
                }
                b'Q' => {
                    self.skipping = false;
                    self.query(&body).await?;
                    craft::ready(&mut self.out, self.status);
                    self.flush().await?;
                }
                b'H' => self.flush().await?,
                _ if self.skipping => {}
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    if let Err(complaint) = self.extended(kind, &body).await? {
                        self.complain(&complaint);
                        self.skipping = true;
                    }
                }
                _ => {
                    let text = format!("the console does not take messages of type {kind}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let sent = tokio::time::timeout(SEND_LIMIT, self.connection.send(&self.out)).await;
        self.out.clear();
        self.out.shrink_to(64 << 10);
        sent.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }

    fn complain(&mut self, complaint: &Complaint) {
        let hint = (!complaint.hint.is_empty()).then_some(complaint.hint);
        let (code, message) = (complaint.code, complaint.message.as_str());
        craft::error(&mut self.out, &ErrorReply { severity: "ERROR", code, message, detail: None, hint });
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    /// Simple protocol: all commands of the text, until one fails.
    async fn query(&mut self, body: &[u8]) -> io::Result<()> {
        let text = body.strip_suffix(b"\0").unwrap_or(body);
        let commands = match command::parse(&String::from_utf8_lossy(text)) {
            Ok(commands) => commands,
            Err(text) => {
                self.complain(&Complaint::syntax(text));
                return Ok(());
            }
        };
        for command in commands {
            if let Some(columns) = portal::columns(&command) {
                table::describe(&mut self.out, columns, &[]);
            }
            match self.execute(&command).await {
                Ok(done) => portal::answer(&mut self.out, &command, done, &[]),
                Err(complaint) => {
                    self.complain(&complaint);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Carries out one command: its rows and its tag.
    async fn execute(&mut self, command: &Command) -> Result<portal::Done, Complaint> {
        if self.status == b'E' && !matches!(command, Command::Commit | Command::Rollback) {
            return Err(Complaint::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        if command.changes() {
            if self.who.role != Role::Admin {
                return Err(Complaint {
                    hint: "Only users of [console.admins] may change something.",
                    ..Complaint::new("42501", format!("user \"{}\" may only SHOW", self.who.user))
                });
            }
            tracing::warn!(user = %self.who.user, peer = %self.who.peer, "console: {command:?}");
        }
        let tag = match command {
            Command::Empty => "",
            Command::Show(topic) => return Ok(portal::Done::rows("SHOW", show::rows(*topic, self.login))),
            Command::One => return Ok(portal::Done::rows("SELECT 1", vec![vec![1_u64.into()]])),
            Command::Version => return Ok(portal::Done::rows("SELECT 1", vec![vec![VERSION.into()]])),
            Command::Begin => {
                self.status = b'T';
                "BEGIN"
            }
            Command::Commit => {
                let failed = std::mem::replace(&mut self.status, b'I') == b'E';
                if failed { "ROLLBACK" } else { "COMMIT" }
            }
            Command::Rollback => {
                self.status = b'I';
                "ROLLBACK"
            }
            Command::Ignored(tag) => tag,
            changing => run::run(self.login, changing).await?,
        };
        Ok(portal::Done::tag(tag))
    }

    /// One message of the extended protocol.
    async fn extended(&mut self, kind: u8, body: &[u8]) -> io::Result<Result<(), Complaint>> {
        let step = match kind {
            b'P' => self.portals.parse(body, &mut self.out),
            b'B' => self.portals.bind(body, &mut self.out),
            b'D' => self.portals.describe(body, &mut self.out),
            b'C' => self.portals.close(body, &mut self.out),
            _ => {
                let Some((name, most)) = portal::execute_head(body) else {
                    return Err(portal::malformed());
                };
                let fresh = match self.portals.to_run(&name) {
                    Ok(fresh) => fresh,
                    Err(complaint) => return Ok(Err(complaint)),
                };
                if let Some(command) = fresh {
                    match self.execute(&command).await {
                        Ok(done) => self.portals.ran(&name, done),
                        Err(complaint) => return Ok(Err(complaint)),
                    }
                }
                self.portals.give(&name, most, &mut self.out);
                return Ok(Ok(()));
            }
        };
        step.map_or_else(|| Err(portal::malformed()), Ok)
    }
}
