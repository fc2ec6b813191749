//! All that Poolwright knows of its pools at one moment, as plain data that can be sent and subtracted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Histogram;

/// Named counters, for example transactions by outcome.
pub type Counts = BTreeMap<String, u64>;

/// The state of one Poolwright process. Counters run from its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Wall clock in µs since 1970.
    pub taken_unix_us: u64,
    /// Age of the process in µs; of an interval, its length.
    pub uptime_us: u64,
    /// One entry per pool.
    pub pools: Vec<PoolSnapshot>,
    /// One entry per pool and fingerprint that was seen.
    pub fingerprints: Vec<FingerprintSnapshot>,
    /// Phases, changes and reloads, newest last.
    pub events: Vec<Event>,
    /// Memory and CPU of the process.
    pub process: Process,
    /// Connection limits of the PostgreSQL server, once known.
    pub server: Option<ServerFacts>,
    /// Live rewrites and what became of them.
    pub rewrites: Vec<RewriteState>,
    /// Clients connected now, all pools together.
    pub client_connections: u64,
    /// Most clients admitted at a time.
    pub client_max: u64,
    /// Clients turned away, by reason.
    pub client_rejections: Counts,
}

/// The state of one pool. Gauges are of the moment, the rest are counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSnapshot {
    /// The name that clients ask for.
    pub name: String,
    /// Database on the server.
    pub database: String,
    /// User on the server.
    pub user: String,
    /// Address of the server.
    pub server: String,
    /// `transaction` or `session`.
    pub mode: String,
    /// Most servers.
    pub max: u32,
    /// Servers kept warm.
    pub min: u32,
    /// Idle time-out in ms, 0 for none.
    pub idle_timeout_ms: u64,
    /// Query time-out in ms, 0 for none.
    pub query_timeout_ms: u64,
    /// Acquire time-out in ms, 0 for none.
    pub acquire_timeout_ms: u64,
    /// Servers by state: active, idle, idle_in_transaction, connecting, closing.
    pub servers: BTreeMap<String, u32>,
    /// Clients by state: active, waiting, idle, idle_in_transaction.
    pub clients: BTreeMap<String, u32>,
    /// How long the oldest waiter waits now, in µs; 0 when nobody waits.
    pub oldest_wait_us: u64,
    /// Age of the oldest checkout now, in µs.
    pub oldest_checkout_us: u64,
    /// Acquires by outcome: immediate, waited, timeout, cancelled.
    pub acquires: Counts,
    /// Times the pool became exhausted.
    pub exhausted_events: u64,
    /// Time spent exhausted, in µs, the present span included.
    pub exhausted_us: u64,
    /// Server connections made.
    pub created: u64,
    /// Server connections closed, by reason.
    pub closed: Counts,
    /// Failed attempts to connect, by SQLSTATE.
    pub connect_failures: Counts,
    /// Transactions by outcome: commit, rollback, abandoned.
    pub transactions: Counts,
    /// Statements executed.
    pub queries: u64,
    /// Errors of statements, by class of SQLSTATE.
    pub errors: Counts,
    /// Rows returned and affected.
    pub rows: u64,
    /// Bytes from clients.
    pub client_in_bytes: u64,
    /// Bytes to clients.
    pub client_out_bytes: u64,
    /// Bytes from servers.
    pub server_in_bytes: u64,
    /// Bytes to servers.
    pub server_out_bytes: u64,
    /// Clients that keep their server now, by reason.
    pub pinned: Counts,
    /// Times that a client began to keep its server, by reason.
    pub pins: Counts,
    /// Time in the queue.
    pub acquire_wait: Histogram,
    /// Server time of a statement.
    pub query: Histogram,
    /// Length of a transaction.
    pub transaction: Histogram,
    /// How long a server was lent.
    pub checkout: Histogram,
    /// Time inside transactions in which the application thought.
    pub transaction_idle: Histogram,
    /// Time to connect to the server.
    pub connect: Histogram,
    /// The newest checkouts, oldest first, at most [`CHECKOUTS_MAX`].
    pub checkouts: Vec<CheckoutRecord>,
}

/// Most checkout records in a snapshot of a pool.
pub const CHECKOUTS_MAX: usize = 65_536;

/// One checkout. Times in µs of the monotonic clock; travels as `[arrived, waited, held]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct CheckoutRecord {
    /// When the client asked.
    pub arrived_us: u64,
    /// How long it queued.
    pub waited_us: u64,
    /// How long it kept the server.
    pub held_us: u64,
}

impl From<(u64, u64, u64)> for CheckoutRecord {
    fn from((arrived_us, waited_us, held_us): (u64, u64, u64)) -> Self {
        Self { arrived_us, waited_us, held_us }
    }
}

impl From<CheckoutRecord> for (u64, u64, u64) {
    fn from(record: CheckoutRecord) -> Self {
        (record.arrived_us, record.waited_us, record.held_us)
    }
}

/// What one fingerprint did in one pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FingerprintSnapshot {
    /// Name of the pool.
    pub pool: String,
    /// 16 hexadecimal digits, or `other`.
    pub id: String,
    /// Normalised text, without literals.
    pub query: String,
    /// Command word, for example `SELECT`.
    pub command: String,
    /// Tables named in the text, as far as recognised.
    pub tables: Vec<String>,
    /// Executions.
    pub calls: u64,
    /// Executions that failed.
    pub errors: u64,
    /// Rows returned and affected.
    pub rows: u64,
    /// Bytes of the answers.
    pub bytes: u64,
    /// Most rows of one execution.
    pub max_rows: u64,
    /// Time in µs for which it occupied a server.
    pub hold_us: u64,
    /// Time in the queue.
    pub acquire_wait: Histogram,
    /// Time the server took.
    pub server_time: Histogram,
    /// Executions that came in runs.
    pub bursts: Bursts,
    /// Executions with the values of a former one.
    pub repeats: Repeats,
    /// OFFSETs seen, when it has one.
    pub offset: Option<Depth>,
    /// Different sets of bind values, estimated, up to some ten thousand.
    pub binds: u64,
}

/// Runs: three or more executions of one fingerprint in sequence by one client, each sent within 50 ms of the
/// end of the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bursts {
    /// Number of runs.
    pub runs: u64,
    /// Executions in them.
    pub calls_in_runs: u64,
    /// Executions in the longest.
    pub longest_run: u64,
    /// Id of the fingerprint that came right before most runs.
    pub parent: Option<String>,
    /// Runs that this parent came before.
    pub parent_calls: u64,
    /// Executions in runs with bind values new to their run.
    pub distinct_binds_in_runs: u64,
}

/// Executions repeated with the same bind values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repeats {
    /// Executions whose values were seen in the 60 s before: a lower bound.
    pub hits: u64,
    /// Executions that were looked at.
    pub calls: u64,
}

/// OFFSETs of a fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Depth {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Sum over all executions.
    pub sum: u64,
    /// Executions.
    pub count: u64,
    /// Executions with a larger OFFSET than the same client's one before.
    pub climbing: u64,
}

/// Something that happened: a phase began, an index was built, the settings were reloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What sort of thing, for example `phase`.
    pub kind: String,
    /// Which one, for example `baseline`.
    pub id: String,
    /// When, in µs since 1970.
    pub unix_us: u64,
}

/// What the process uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Proportional memory (Pss) in bytes, 0 if unknown.
    pub pss_bytes: u64,
    /// CPU time, user and system, in µs.
    pub cpu_us: u64,
    /// Open file descriptors.
    pub fds: u64,
}

/// Limits of the PostgreSQL server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections` and `reserved_connections` together.
    pub reserved_connections: u32,
}

/// A live rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewriteState {
    /// Its name.
    pub id: String,
    /// Its pool.
    pub pool: String,
    /// `active`, `failed` or `revoked`.
    pub state: String,
    /// `same` or `different`: what the replacement does to the rows.
    pub rows: String,
    /// Executions of the replacement.
    pub applied: u64,
    /// Times the replacement failed at Parse.
    pub failures: u64,
}

impl Snapshot {
    /// What happened since `earlier`: counters and histograms subtracted, gauges as they are now. Pools and
    /// fingerprints that `earlier` lacks are taken whole; everything is, when the process was started anew in between.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let mut difference = self.clone();
        difference.events.retain(|event| !earlier.events.contains(event));
        if self.is_of_a_later_process(earlier) {
            return difference;
        }
        difference.uptime_us = self.uptime_us.saturating_sub(earlier.uptime_us);
        difference.process.cpu_us = self.process.cpu_us.saturating_sub(earlier.process.cpu_us);
        subtract(&mut difference.client_rejections, &earlier.client_rejections);
        for pool in &mut difference.pools {
            if let Some(before) = earlier.pools.iter().find(|before| before.name == pool.name) {
                pool.subtract(before);
            }
        }
        let known: BTreeMap<(&str, &str), &FingerprintSnapshot> =
            earlier.fingerprints.iter().map(|f| ((f.pool.as_str(), f.id.as_str()), f)).collect();
        for fingerprint in &mut difference.fingerprints {
            if let Some(before) = known.get(&(fingerprint.pool.as_str(), fingerprint.id.as_str())) {
                fingerprint.subtract(before);
            }
        }
        difference.fingerprints.retain(|fingerprint| fingerprint.calls > 0);
        for rewrite in &mut difference.rewrites {
            if let Some(before) =
                earlier.rewrites.iter().find(|r| r.id == rewrite.id && r.pool == rewrite.pool)
            {
                less(&mut rewrite.applied, before.applied);
                less(&mut rewrite.failures, before.failures);
            }
        }
        difference
    }
}

impl Snapshot {
    /// A process younger than the time between the two did not take the earlier one. That holds however long either
    /// ran, and is not misled by a wall clock that was set back.
    fn is_of_a_later_process(&self, earlier: &Snapshot) -> bool {
        let passed_us = self.taken_unix_us.saturating_sub(earlier.taken_unix_us);
        self.uptime_us < earlier.uptime_us || self.uptime_us < passed_us
    }
}

impl PoolSnapshot {
    fn subtract(&mut self, before: &PoolSnapshot) {
        subtract(&mut self.acquires, &before.acquires);
        subtract(&mut self.closed, &before.closed);
        subtract(&mut self.connect_failures, &before.connect_failures);
        subtract(&mut self.transactions, &before.transactions);
        subtract(&mut self.errors, &before.errors);
        subtract(&mut self.pins, &before.pins);
        less(&mut self.exhausted_events, before.exhausted_events);
        less(&mut self.exhausted_us, before.exhausted_us);
        less(&mut self.created, before.created);
        less(&mut self.queries, before.queries);
        less(&mut self.rows, before.rows);
        less(&mut self.client_in_bytes, before.client_in_bytes);
        less(&mut self.client_out_bytes, before.client_out_bytes);
        less(&mut self.server_in_bytes, before.server_in_bytes);
        less(&mut self.server_out_bytes, before.server_out_bytes);
        self.acquire_wait = self.acquire_wait.since(&before.acquire_wait);
        self.query = self.query.since(&before.query);
        self.transaction = self.transaction.since(&before.transaction);
        self.checkout = self.checkout.since(&before.checkout);
        self.transaction_idle = self.transaction_idle.since(&before.transaction_idle);
        self.connect = self.connect.since(&before.connect);
        let mut known = before.checkouts.clone();
        known.sort_unstable();
        self.checkouts.retain(|record| known.binary_search(record).is_err());
    }
}

impl FingerprintSnapshot {
    fn subtract(&mut self, before: &FingerprintSnapshot) {
        less(&mut self.calls, before.calls);
        less(&mut self.errors, before.errors);
        less(&mut self.rows, before.rows);
        less(&mut self.bytes, before.bytes);
        less(&mut self.hold_us, before.hold_us);
        self.acquire_wait = self.acquire_wait.since(&before.acquire_wait);
        self.server_time = self.server_time.since(&before.server_time);
        less(&mut self.bursts.runs, before.bursts.runs);
        less(&mut self.bursts.calls_in_runs, before.bursts.calls_in_runs);
        less(&mut self.bursts.parent_calls, before.bursts.parent_calls);
        less(&mut self.bursts.distinct_binds_in_runs, before.bursts.distinct_binds_in_runs);
        less(&mut self.repeats.hits, before.repeats.hits);
        less(&mut self.repeats.calls, before.repeats.calls);
        if let (Some(depth), Some(earlier)) = (&mut self.offset, &before.offset) {
            less(&mut depth.sum, earlier.sum);
            less(&mut depth.count, earlier.count);
            less(&mut depth.climbing, earlier.climbing);
        }
    }
}

fn subtract(now: &mut Counts, before: &Counts) {
    for (name, count) in now {
        less(count, before.get(name).copied().unwrap_or(0));
    }
}

/// Subtracts, or keeps the whole where the counter started anew.
fn less(now: &mut u64, before: u64) {
    if *now >= before {
        *now -= before;
    }
}
