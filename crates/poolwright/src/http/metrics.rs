//! A [`Snapshot`] as Prometheus reads it.

use std::collections::BTreeMap;

use stats::{Counts, Histogram, PoolSnapshot, RewriteState, Snapshot};

use super::fingerprints;
use super::selection::Selection;
use super::text::{Page, seconds};

/// Name, help, and what a pool has of it.
type Family<'a, T> = (&'static str, &'static str, fn(&'a PoolSnapshot) -> T);

/// Name, help, and what a live rewrite has of it.
type RewriteFamily = (&'static str, &'static str, fn(&RewriteState) -> u64);

/// Labels that counters have from the start, at zero: Prometheus sees a counter's first rise only then.
mod always {
    /// States of server connections.
    pub const SERVERS: &[&str] = &["active", "idle", "idle_in_transaction", "connecting", "closing"];
    /// States of clients.
    pub const CLIENTS: &[&str] = &["active", "waiting", "idle", "idle_in_transaction"];
    /// Why a client keeps its server.
    pub const PINS: &[&str] =
        &["set", "set_config", "prepare", "listen", "temp_table", "hold_cursor", "advisory_lock"];
    /// How a request for a server ends.
    pub const ACQUIRES: &[&str] = &["immediate", "waited", "timeout", "cancelled"];
    /// Why a server connection is closed.
    pub const CLOSED: &[&str] = &["idle", "lifetime", "error", "reset_failed", "admin", "abandoned"];
    /// How a transaction ends.
    pub const TRANSACTIONS: &[&str] = &["commit", "rollback", "abandoned"];
    /// Not reached, broken while connecting, wrong password, no such database, too many connections, starting up or
    /// shutting down.
    pub const CONNECT_FAILURES: &[&str] = &["08001", "08006", "28P01", "3D000", "53300", "57P03"];
    /// Connection, data, constraint, transaction state, serialization and deadlock, name or syntax, resources,
    /// cancelled or shut down, internal.
    pub const ERRORS: &[&str] = &["08", "22", "23", "25", "40", "42", "53", "57", "XX"];
    /// What became of a live rewrite.
    pub const REWRITES: &[&str] = &["active", "failed", "revoked"];
    /// Why a client is turned away.
    pub const REJECTIONS: &[&str] =
        &["database", "draining", "limit", "password", "protocol", "server", "timeout", "user"];
}

/// What one page leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Which fingerprints have series of their own.
    selection: Selection,
    /// When the process started, in seconds since 1970: said once, for clocks drift apart.
    started_s: Option<f64>,
}

/// Renders all families.
pub(super) fn render(snapshot: &Snapshot, memory: &mut Memory) -> String {
    let mut page = Page::default();
    let started_us = snapshot.taken_unix_us.saturating_sub(snapshot.uptime_us);
    process(&mut page, snapshot, *memory.started_s.get_or_insert(seconds(started_us).round()));
    identity(&mut page, &snapshot.pools);
    gauges(&mut page, snapshot);
    counters(&mut page, snapshot);
    histograms(&mut page, &snapshot.pools);
    fingerprints::write(&mut page, &memory.selection.choose(snapshot));
    changes(&mut page, snapshot);
    page.finish()
}

fn process(page: &mut Page, snapshot: &Snapshot, started_s: f64) {
    let process = &snapshot.process;
    page.family("poolwright_build_info", "gauge", "Version of Poolwright; always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.family("process_resident_memory_bytes", "gauge", "Resident memory of Poolwright.");
    page.sample(&[], process.rss_bytes as f64);
    page.family("process_cpu_seconds_total", "counter", "CPU time of Poolwright, user and system.");
    page.sample(&[], seconds(process.cpu_us));
    page.family("process_open_fds", "gauge", "Open file descriptors of Poolwright.");
    page.sample(&[], process.fds as f64);
    page.family("process_start_time_seconds", "gauge", "When Poolwright started, since 1970.");
    page.sample(&[], started_s);
}

fn identity(page: &mut Page, pools: &[PoolSnapshot]) {
    page.family("poolwright_pool_info", "gauge", "Database, user, server and mode of a pool; always 1.");
    for pool in pools {
        let labels = [
            ("pool", pool.name.as_str()),
            ("database", &pool.database),
            ("user", &pool.user),
            ("server", &pool.server),
            ("mode", &pool.mode),
        ];
        page.sample(&labels, 1.0);
    }
}

/// One value per pool.
fn per_pool<'a>(
    page: &mut Page,
    pools: &'a [PoolSnapshot],
    (name, kind, help): (&str, &str, &str),
    value: impl Fn(&'a PoolSnapshot) -> f64,
) {
    page.family(name, kind, help);
    for pool in pools {
        page.sample(&[("pool", &pool.name)], value(pool));
    }
}

/// One value per pool and name; `always` are there even at zero, so that their first rise is seen.
fn per_name<T: Copy + Into<u64>>(
    page: &mut Page,
    pools: &[PoolSnapshot],
    (name, kind, help): (&str, &str, &str),
    (label, always): (&str, &[&str]),
    values: impl Fn(&PoolSnapshot) -> &BTreeMap<String, T>,
) {
    page.family(name, kind, help);
    for pool in pools {
        for (found, value) in with_zeros(values(pool), always) {
            page.sample(&[("pool", &pool.name), (label, found)], value as f64);
        }
    }
}

fn with_zeros<'a, T: Copy + Into<u64>>(
    counts: &'a BTreeMap<String, T>,
    always: &[&'a str],
) -> BTreeMap<&'a str, u64> {
    let mut all: BTreeMap<&str, u64> = always.iter().map(|known| (*known, 0)).collect();
    all.extend(counts.iter().map(|(found, value)| (found.as_str(), (*value).into())));
    all
}

/// Name, help, known states, and how many a pool has in each.
type States =
    (&'static str, &'static str, &'static [&'static str], fn(&PoolSnapshot) -> &BTreeMap<String, u32>);

fn gauges(page: &mut Page, snapshot: &Snapshot) {
    let pools = &snapshot.pools;
    let states: [States; 2] = [
        ("poolwright_server_connections", "Connections to PostgreSQL, by state.", always::SERVERS, |pool| {
            &pool.servers
        }),
        (
            "poolwright_client_connections",
            "Connections from applications, by state.",
            always::CLIENTS,
            |pool| &pool.clients,
        ),
    ];
    for (name, help, always, values) in states {
        per_name(page, pools, (name, "gauge", help), ("state", always), values);
    }
    let plain: [Family<f64>; 4] = [
        ("poolwright_pool_max_connections", "Most server connections.", |pool| f64::from(pool.max)),
        ("poolwright_pool_min_connections", "Server connections kept warm.", |pool| f64::from(pool.min)),
        (
            "poolwright_pool_oldest_waiter_seconds",
            "How long the client at the head of the queue has waited by now; 0 when nobody waits.",
            |pool| seconds(pool.oldest_wait_us),
        ),
        (
            "poolwright_pool_oldest_checkout_seconds",
            "How long the oldest checkout has lasted by now; 0 when no server is lent.",
            |pool| seconds(pool.oldest_checkout_us),
        ),
    ];
    for (name, help, value) in plain {
        per_pool(page, pools, (name, "gauge", help), value);
    }
    let help = "Clients that keep their server now because of session state, by reason.";
    let family = ("poolwright_pinned_connections", "gauge", help);
    per_name(page, pools, family, ("reason", always::PINS), |pool| &pool.pinned);
    page.family("poolwright_client_max_connections", "gauge", "Most clients at a time, all pools together.");
    page.sample(&[], snapshot.client_max as f64);
    if let Some(server) = &snapshot.server {
        page.family("poolwright_postgres_max_connections", "gauge", "PostgreSQL's max_connections.");
        page.sample(&[], f64::from(server.max_connections));
        page.family(
            "poolwright_postgres_reserved_connections",
            "gauge",
            "Connections that PostgreSQL keeps for superusers and reserved roles.",
        );
        page.sample(&[], f64::from(server.reserved_connections));
    }
}

/// Name, help, label, its known values, and what a pool has of them.
type Labelled =
    (&'static str, &'static str, &'static str, &'static [&'static str], fn(&PoolSnapshot) -> &Counts);

fn labelled_counters(page: &mut Page, pools: &[PoolSnapshot]) {
    let all: [Labelled; 6] = [
        (
            "poolwright_acquires_total",
            "Requests for a server, by outcome.",
            "outcome",
            always::ACQUIRES,
            |pool| &pool.acquires,
        ),
        (
            "poolwright_server_connections_closed_total",
            "Server connections closed, by reason.",
            "reason",
            always::CLOSED,
            |pool| &pool.closed,
        ),
        (
            "poolwright_server_connect_failures_total",
            "Failed attempts to connect to PostgreSQL, by SQLSTATE.",
            "sqlstate",
            always::CONNECT_FAILURES,
            |pool| &pool.connect_failures,
        ),
        (
            "poolwright_transactions_total",
            "Transactions, by outcome.",
            "outcome",
            always::TRANSACTIONS,
            |pool| &pool.transactions,
        ),
        (
            "poolwright_query_errors_total",
            "Errors that clients were sent, by class of SQLSTATE.",
            "sqlstate_class",
            always::ERRORS,
            |pool| &pool.errors,
        ),
        (
            "poolwright_pins_total",
            "Times that a client began to keep its server because of session state, by reason.",
            "reason",
            always::PINS,
            |pool| &pool.pins,
        ),
    ];
    for (name, help, label, always, values) in all {
        per_name(page, pools, (name, "counter", help), (label, always), values);
    }
}

fn counters(page: &mut Page, snapshot: &Snapshot) {
    let pools = &snapshot.pools;
    labelled_counters(page, pools);
    let plain: [Family<f64>; 5] = [
        (
            "poolwright_pool_exhausted_total",
            "Times that a pool became exhausted: somebody waits, and no server is free or may be opened.",
            |pool| pool.exhausted_events as f64,
        ),
        (
            "poolwright_pool_exhausted_seconds_total",
            "Time for which a pool was exhausted; its rate is the share of time.",
            |pool| seconds(pool.exhausted_us),
        ),
        ("poolwright_server_connections_created_total", "Server connections opened.", |pool| {
            pool.created as f64
        }),
        ("poolwright_queries_total", "Statements executed.", |pool| pool.queries as f64),
        ("poolwright_rows_total", "Rows returned and affected.", |pool| pool.rows as f64),
    ];
    for (name, help, value) in plain {
        per_pool(page, pools, (name, "counter", help), value);
    }
    page.family(
        "poolwright_network_bytes_total",
        "counter",
        "Bytes received from (in) and sent to (out) clients and servers.",
    );
    for pool in pools {
        for (side, direction, bytes) in [
            ("client", "in", pool.client_in_bytes),
            ("client", "out", pool.client_out_bytes),
            ("server", "in", pool.server_in_bytes),
            ("server", "out", pool.server_out_bytes),
        ] {
            page.sample(&[("pool", &pool.name), ("side", side), ("direction", direction)], bytes as f64);
        }
    }
    page.family("poolwright_client_rejections_total", "counter", "Clients turned away at log-in, by reason.");
    for (reason, count) in with_zeros(&snapshot.client_rejections, always::REJECTIONS) {
        page.sample(&[("reason", reason)], count as f64);
    }
}

fn histograms<'a>(page: &mut Page, pools: &'a [PoolSnapshot]) {
    let all: [Family<'a, &'a Histogram>; 6] = [
        (
            "poolwright_acquire_wait_seconds",
            "How long clients waited for a server; those that got one at once count as 0.",
            |pool| &pool.acquire_wait,
        ),
        ("poolwright_server_connect_seconds", "Time to open a connection to PostgreSQL.", |pool| {
            &pool.connect
        }),
        ("poolwright_checkout_seconds", "How long a server was lent to a client.", |pool| &pool.checkout),
        (
            "poolwright_query_seconds",
            "Time of a statement on PostgreSQL, from its sending to the end of its answer; waiting excluded.",
            |pool| &pool.query,
        ),
        ("poolwright_transaction_seconds", "Length of a transaction, waiting excluded.", |pool| {
            &pool.transaction
        }),
        (
            "poolwright_transaction_idle_seconds",
            "Time inside a transaction in which the application was thinking.",
            |pool| &pool.transaction_idle,
        ),
    ];
    for (name, help, histogram) in all {
        page.family(name, "histogram", help);
        for pool in pools {
            page.histogram(&[("pool", &pool.name)], histogram(pool));
        }
    }
}

fn changes(page: &mut Page, snapshot: &Snapshot) {
    page.family(
        "poolwright_event_timestamp_seconds",
        "gauge",
        "When something last happened, since 1970: a phase, a reload, a change that was announced.",
    );
    let newest: BTreeMap<(&str, &str), u64> =
        snapshot.events.iter().map(|e| ((e.kind.as_str(), e.id.as_str()), e.unix_us)).collect();
    for ((kind, id), unix_us) in newest {
        page.sample(&[("kind", kind), ("id", id)], seconds(unix_us));
    }
    rewrites(page, &snapshot.rewrites);
}

fn rewrites(page: &mut Page, all: &[RewriteState]) {
    page.family("poolwright_rewrite_state", "gauge", "1 for the state that a live rewrite is in, else 0.");
    for rewrite in all {
        for state in with_zeros(&BTreeMap::from([(rewrite.state.clone(), 1u64)]), always::REWRITES) {
            let labels = [
                ("pool", rewrite.pool.as_str()),
                ("rewrite", &rewrite.id),
                ("rows", &rewrite.rows),
                ("state", state.0),
            ];
            page.sample(&labels, state.1 as f64);
        }
    }
    let counters: [RewriteFamily; 2] = [
        ("poolwright_rewrite_applied_total", "Executions of a live rewrite.", |rewrite| rewrite.applied),
        (
            "poolwright_rewrite_failures_total",
            "Times that a live rewrite was refused by PostgreSQL and the original was sent.",
            |rewrite| rewrite.failures,
        ),
    ];
    for (name, help, value) in counters {
        page.family(name, "counter", help);
        for rewrite in all {
            page.sample(&[("pool", &rewrite.pool), ("rewrite", &rewrite.id)], value(rewrite) as f64);
        }
    }
}
