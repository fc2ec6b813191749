//! A server's side of the conversation: what it was sent, what it owes, what it knows.

use std::{collections::VecDeque, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{Client, Parameters, Statement, rewriting::Fallback};

/// One statement under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub slot: u32,
    pub exempt: bool,
    pub control: bool,
    pub bind_hash: u64,
    pub offset: Option<u64>,
    /// Rewrite whose replacement it is, or 0.
    pub rewrite: u32,
    /// It drops prepared statements or resets settings: nothing is sent behind it before its answer.
    pub drops: bool,
    /// It resets settings.
    pub resets: bool,
}

/// Why a request of our own was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Own {
    /// ROLLBACK and the like.
    Query,
    /// The client's parameters.
    Restore,
    /// The client's parameters, after it has reset its session; it is told what changes.
    Renew,
    /// DISCARD ALL.
    Reset,
    /// A replacement is prepared; `blamed` is its rewrite when a failure is the rewrite's fault, else 0.
    Trial { id: u64, blamed: u32 },
}

/// What a server still owes, in order.
#[derive(Debug)]
pub(crate) enum Expect {
    /// ParseComplete for the client; the server will know the statement.
    ParseNamed { statement: Arc<Statement>, name: Box<[u8]> },
    /// ParseComplete for the client, unnamed statement.
    ParseUnnamed { serial: u64 },
    /// The error that a statement is there already, or is not there, by the client's name for it.
    Misnamed { name: Box<[u8]> },
    /// ParseComplete to swallow; the server will know the statement (`None`: the unnamed one).
    ParseInjected(Option<Arc<Statement>>),
    /// Answered here, when its turn comes.
    LocalParse { name: Box<[u8]> },
    /// Answered here, when its turn comes.
    LocalClose {
        name: Box<[u8]>,
        /// What it was, should the Close be skipped.
        statement: Option<Arc<Statement>>,
    },
    /// CloseComplete to swallow.
    CloseInjected(u64),
    /// One BindComplete.
    Bind,
    /// RowDescription or NoData, perhaps behind ParameterDescription.
    Describe,
    /// CloseComplete for the client.
    Close,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute(Work),
    /// Anything up to ReadyForQuery.
    Query(Work),
    /// End of the client's COPY data; nothing is owed for it.
    CopyDone,
    /// ReadyForQuery.
    Sync,
    /// A request of our own: everything up to ReadyForQuery is swallowed.
    Injected(Own),
}

/// What a server knows of a statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Knowledge {
    Known,
    /// Parse sent in this Sync segment.
    Parsing(u64),
    /// Either; Close and Parse make it certain.
    Unsure,
    /// A replacement whose trial is under way.
    Trying,
    /// A replacement that the server did not take.
    Refused,
}

/// How to bring an abandoned server to rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfinished {
    /// At rest.
    Nothing,
    /// Replies are still owed: wait.
    Owes,
    /// In COPY: send CopyFail (then Sync when the flag says so).
    Copy {
        /// The COPY came by the extended protocol.
        extended: bool,
    },
    /// An extended batch without its Sync: undo it.
    Batch,
    /// A transaction is open: send ROLLBACK.
    Transaction,
    /// Half a message was sent: close.
    Torn,
}

/// Relay state of one server connection.
pub struct Server {
    pub(crate) queue: VecDeque<Expect>,
    /// Transaction status of the last ReadyForQuery.
    pub(crate) status: u8,
    /// An extended message was sent since the last Sync.
    pub(crate) batch_open: bool,
    /// An error came and no Sync is under way: the server skips everything up to one.
    pub(crate) failed: bool,
    /// In COPY IN until the client's CopyDone or CopyFail.
    pub(crate) copy_in: bool,
    pub(crate) copy_extended: bool,
    /// A COPY IN has begun and not ended.
    pub(crate) copying: bool,
    /// Bytes of the frame being streamed to the server that are still to come.
    pub(crate) sending: usize,
    /// Bytes of the frame being streamed from the server that are still to come, and whether they
    /// are for the client.
    pub(crate) passing: usize,
    pub(crate) pass_on: bool,
    pub(crate) segment: u64,
    pub(crate) tick: u64,
    pub(crate) known: HashMap<u64, (Knowledge, u64, Arc<Statement>), FixedState>,
    /// Serial of the unnamed statement it holds; 0 for none, the highest for an unknown one.
    pub(crate) unnamed: u64,
    /// Statement under way: since when and its reply's bytes so far.
    pub(crate) since_us: u64,
    pub(crate) bytes: u64,
    pub(crate) error_seen: bool,
    /// Reported values at connect.
    pub(crate) initial: Parameters,
    /// Reported values now.
    pub(crate) reported: Parameters,
    /// What differs from a fresh connection.
    pub(crate) differs: Parameters,
    pub(crate) restore_failed: bool,
    pub(crate) dead: bool,
    /// What the client is told in place of the next 57014: a limit of ours cancelled the statement.
    pub cancelled_by: Option<String>,
    /// A frame waits for the fate of a name that an earlier batch gave or took.
    pub(crate) doubtful: bool,
    /// A name made for a DEALLOCATE that then failed.
    pub(crate) litter: Option<Box<[u8]>>,
    /// Statements are being dropped, or settings reset: nothing may be sent meanwhile.
    pub(crate) dropping: bool,
    /// Settings were reset in what has not been answered by ReadyForQuery.
    pub(crate) resetting: bool,
    /// The client's name for what the next error calls otherwise.
    pub(crate) own_name: Option<Box<[u8]>>,
    /// The last transaction was rolled back, or failed.
    pub(crate) rolled_back: bool,
    /// It was at rest, outside a transaction, when the present frame came.
    pub(crate) quiet: bool,
    /// Replacements to be tried when it is at rest, and the rewrite to blame for each.
    pub(crate) wanted: Vec<(Arc<Statement>, u32)>,
    pub(crate) fallback: Option<Fallback>,
    /// Rewrite whose replacement failed, while the client's own text is under way; 0 for none.
    pub(crate) suspect: u32,
    /// What must be sent to it now. The caller takes it after each `receive`.
    pub resend: Vec<u8>,
    /// Rewrites that failed. The caller takes them.
    pub failed_rewrites: Vec<u32>,
}

impl Server {
    /// A fresh connection at rest, with the parameters it reported.
    pub fn new<'a>(reported: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut initial = Parameters::default();
        for (name, value) in reported {
            initial.set(name.as_bytes(), value.as_bytes());
        }
        Self {
            queue: VecDeque::with_capacity(16),
            status: b'I',
            batch_open: false,
            failed: false,
            copy_in: false,
            copy_extended: false,
            copying: false,
            sending: 0,
            passing: 0,
            pass_on: false,
            segment: 1,
            tick: 0,
            known: HashMap::default(),
            unnamed: 0,
            since_us: 0,
            bytes: 0,
            error_seen: false,
            reported: initial.clone(),
            initial,
            differs: Parameters::default(),
            restore_failed: false,
            dead: false,
            cancelled_by: None,
            doubtful: false,
            litter: None,
            dropping: false,
            resetting: false,
            own_name: None,
            rolled_back: false,
            quiet: false,
            wanted: Vec::new(),
            fallback: None,
            suspect: 0,
            resend: Vec::new(),
            failed_rewrites: Vec::new(),
        }
    }

    /// Nothing is owed and no transaction is open: another client may have it.
    pub fn at_rest(&self) -> bool {
        self.unfinished() == Unfinished::Nothing && !self.dead
    }

    /// Nothing of a client's is under way, and no transaction is open.
    pub(crate) fn rests_but_for_ours(&self) -> bool {
        self.sending == 0
            && !self.batch_open
            && !self.copy_in
            && self.status == b'I'
            && !self.dead
            && self.queue.iter().all(|expect| matches!(expect, Expect::Injected(_)))
    }

    /// PostgreSQL said FATAL: the connection ends.
    pub fn dead(&self) -> bool {
        self.dead
    }

    /// Whether the last transaction was rolled back or failed; forgotten with the question.
    pub fn take_rolled_back(&mut self) -> bool {
        std::mem::take(&mut self.rolled_back)
    }

    /// How many replies are owed.
    pub fn owed(&self) -> usize {
        self.queue.len()
    }

    /// Replies are owed.
    pub fn owes(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// A transaction is open and the server waits for its client.
    pub fn idle_in_transaction(&self) -> bool {
        self.queue.is_empty() && (self.status != b'I' || self.batch_open)
    }

    /// The statement under way: its slot, its start in microseconds and whether it is exempt from
    /// the query time-out.
    pub fn running(&self) -> Option<(u32, u64, bool)> {
        self.queue.iter().find_map(|expect| match expect {
            Expect::Execute(work) | Expect::Query(work) => {
                Some((work.slot, self.since_us, work.exempt || self.copy_in || self.sending > 0))
            }
            _ => None,
        })
    }

    /// What is to be done when its client is gone.
    pub fn unfinished(&self) -> Unfinished {
        if self.sending > 0 || self.passing > 0 && self.queue.is_empty() {
            Unfinished::Torn
        } else if self.copy_in {
            Unfinished::Copy { extended: self.copy_extended }
        } else if !self.queue.is_empty() {
            // Without a Sync behind it the server answers nothing more: send one.
            let answered =
                self.queue.iter().any(|e| matches!(e, Expect::Sync | Expect::Query(_) | Expect::Injected(_)));
            if answered { Unfinished::Owes } else { Unfinished::Batch }
        } else if self.batch_open {
            Unfinished::Batch
        } else if self.status != b'I' {
            Unfinished::Transaction
        } else {
            Unfinished::Nothing
        }
    }

    /// A Query of ours drops the unnamed statement as any other does.
    fn own_query(&mut self, sql: &[u8], own: Own, to_server: &mut Vec<u8>) {
        wire::craft::query(to_server, sql);
        self.unnamed = 0;
        self.queue.push_back(Expect::Injected(own));
    }

    /// Appends a Query of our own whose whole answer is swallowed.
    pub fn inject(&mut self, sql: &[u8], to_server: &mut Vec<u8>) {
        self.own_query(sql, Own::Query, to_server);
    }

    /// Appends DISCARD ALL; behind its answer the session is as a fresh connection's. A failure is a fault.
    pub fn reset(&mut self, to_server: &mut Vec<u8>) {
        self.own_query(b"DISCARD ALL", Own::Reset, to_server);
    }

    /// A message is on its way in pieces, and some are missing: nothing else can be sent.
    pub fn torn(&self) -> bool {
        self.sending > 0
    }

    /// Appends a Sync of our own (its ReadyForQuery goes to the client side).
    pub fn inject_sync(&mut self, to_server: &mut Vec<u8>) {
        wire::craft::sync(to_server);
        self.push(Expect::Sync);
        self.close_segment();
    }

    /// Appends what ends a batch that has no Sync, undone as PostgreSQL undoes it when its client leaves:
    /// Execute of ROLLBACK, which ends an implicit transaction as well, and Sync; all answers are swallowed. While
    /// replies are owed it only asks for them, for one may be the beginning of a COPY.
    pub fn inject_rollback(&mut self, to_server: &mut Vec<u8>) {
        if self.owes() {
            return wire::craft::flush(to_server);
        }
        wire::craft::parse(to_server, b"", b"ROLLBACK\0\0\0");
        wire::craft::bind(to_server, b"", b"", &[0; 6], 0);
        wire::craft::frame(to_server, b'E', |body| body.extend_from_slice(&[0; 5]));
        wire::craft::sync(to_server);
        self.unnamed = crate::knowledge::UNKNOWN;
        self.queue.push_back(Expect::Injected(Own::Query));
        self.close_segment();
    }

    /// Appends CopyFail.
    pub fn inject_copy_fail(&mut self, reason: &str, to_server: &mut Vec<u8>) {
        wire::craft::copy_fail(to_server, reason);
        self.copy_in = false;
    }

    /// Begins to restore the client's parameters; nothing is sent when they are there already.
    pub fn restore(&mut self, client: &mut Client, to_server: &mut Vec<u8>) {
        self.bring(client, Own::Restore, to_server);
    }

    /// The client has reset its settings: they are those of a fresh connection, and shall be those it began with.
    pub(crate) fn renew(&mut self, client: &mut Client) {
        self.differs.clear();
        client.parameters = client.initial.clone();
        client.compared = false;
        let mut sql = std::mem::take(&mut self.resend);
        self.bring(client, Own::Renew, &mut sql);
        self.resend = sql;
    }

    fn bring(&mut self, client: &mut Client, own: Own, to_server: &mut Vec<u8>) {
        if !client.compared {
            client.compared = true;
            let all = client.parameters.clone();
            for (name, value) in all.iter().filter(|(name, value)| self.initial.get(name) == Some(*value)) {
                let _ = value;
                client.parameters.remove(name);
            }
        }
        if client.parameters.hash() == self.differs.hash() {
            return;
        }
        match self.differs.restore_sql(&client.parameters, &self.reported) {
            Some(sql) => {
                self.own_query(&sql, own, to_server);
            }
            None => self.differs = client.parameters.clone(),
        }
    }

    /// The session's state is that of a fresh connection again, except for what DISCARD ALL keeps.
    pub fn forget(&mut self) {
        self.known.clear();
        self.unnamed = 0;
    }

    pub(crate) fn close_segment(&mut self) {
        self.batch_open = false;
        self.failed = false;
        self.segment += 1;
    }

    /// Notes what the server will owe. While it skips to a Sync it owes nothing.
    pub(crate) fn push(&mut self, expect: Expect) {
        if self.failed && !matches!(expect, Expect::Sync) {
            self.undo(expect, None);
            return;
        }
        self.queue.push_back(expect);
    }
}
