//! One client's conversation with one server: transaction state, expected replies, prepared
//! statements, COPY, session state, faults as actions. No socket, no clock, no randomness.
//!
//! ```text
//!  client bytes --> Client::take(..., &mut Server) --> bytes for the server
//!  server bytes --> Server::receive(..., &mut Client) --> bytes for the client, events
//! ```
//! Named statements get one server-side name per text, shared by all clients of a pool, so that a
//! client may meet any server. What a server knows changes only on its own confirmation.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod deallocate;
mod forward;
mod knowledge;
mod parameters;
mod receive;
mod rewriting;
mod server;
mod statements;
mod values;
mod wording;

pub use client::{Client, Context, Need, Step};
pub use parameters::Parameters;
pub use receive::Received;
pub use rewriting::{Replacement, Rewriting};
pub use server::{Server, Unfinished};
pub use statements::{Statement, Statements};

/// Longest text (Query, Parse) that is held whole, in bytes. A longer Query is judged by its beginning.
pub const HELD_BYTES_MAX: usize = 16 << 20;
/// Longer frames that need not be held whole are streamed: Bind, FunctionCall, COPY data; rows always are.
pub const STREAMED_BYTES_MIN: usize = 64 << 10;
/// Replies that may stand in the queue when one that needs no server joins them.
pub const LOCAL_REPLIES_MAX: usize = 4 << 10;
/// Longest control frame held whole from a server, in bytes.
pub const CONTROL_BYTES_MAX: usize = 8 << 20;

/// Why a client keeps its server until it leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinReason {
    /// A SET of a parameter that PostgreSQL does not report.
    Set,
    /// `set_config(…)`.
    SetConfig,
    /// SQL PREPARE.
    Prepare,
    /// LISTEN.
    Listen,
    /// A temporary table.
    TempTable,
    /// A cursor WITH HOLD.
    HoldCursor,
    /// A session advisory lock.
    AdvisoryLock,
    /// A text too long to be read whole.
    LongText,
}

impl PinReason {
    /// Label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::SetConfig => "set_config",
            Self::Prepare => "prepare",
            Self::Listen => "listen",
            Self::TempTable => "temp_table",
            Self::HoldCursor => "hold_cursor",
            Self::AdvisoryLock => "advisory_lock",
            Self::LongText => "long_text",
        }
    }
}

/// What the relay needs to know about a statement's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatementInfo {
    /// The caller's number for the statement's fingerprint.
    pub slot: u32,
    /// Id of the fingerprint.
    pub id: u64,
    /// Session state the statement leaves behind, if any.
    pub pin: Option<PinReason>,
    /// The query time-out does not apply (COPY, VACUUM, CREATE INDEX, …).
    pub exempt: bool,
    /// BEGIN, COMMIT and their kin.
    pub control: bool,
    /// SET LOCAL: the transaction is not like others from here on.
    pub set_local: bool,
    /// `DEALLOCATE name`.
    pub deallocates: bool,
    /// DEALLOCATE ALL or DISCARD ALL.
    pub discards: bool,
    /// RESET ALL or DISCARD ALL: settings are as at the start of the session.
    pub resets: bool,
    /// Where the OFFSET value is.
    pub offset: Place,
}

/// Where a value stands in a statement.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Place {
    /// Nowhere.
    #[default]
    Absent,
    /// In parameter n, counted from 1.
    Param(u16),
    /// In the text.
    Literal(u64),
}

/// Judges the text of statements.
pub trait Inspect {
    /// Facts about one statement (or several, `;`-separated); called once per Query and Parse.
    fn statement(&mut self, sql: &[u8]) -> StatementInfo;
    /// Name that a `DEALLOCATE name` drops.
    fn deallocated(&mut self, sql: &[u8]) -> Option<Vec<u8>>;
}

/// Something finished on a server, for the statistics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Executed {
    /// Fingerprint slot.
    pub slot: u32,
    /// When it was sent, or when the one before it ended, in microseconds.
    pub sent_us: u64,
    /// Rows named by the command tag.
    pub rows: u64,
    /// Bytes of its reply.
    pub bytes: u64,
    /// SQLSTATE when it failed.
    pub error: Option<[u8; 5]>,
    /// Hash of the bound values (0 for none).
    pub bind_hash: u64,
    /// OFFSET it asked for.
    pub offset: Option<u64>,
    /// BEGIN, COMMIT and their kin.
    pub control: bool,
    /// Number of the rewrite whose replacement it was, or 0.
    pub rewrite: u32,
}

/// A connection must close, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A frame breaks the protocol.
    Protocol,
    /// A frame or a table is over its limit.
    TooLarge,
    /// The server answered something that was not expected.
    Unexpected(u8),
    /// The client's parameters could not be restored on the server, or its session not be reset.
    Restore,
}
