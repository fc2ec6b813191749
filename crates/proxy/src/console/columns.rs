//! The columns of SHOW. Names are PgBouncer's where they mean the same.

use super::command::Topic;
use super::table::Column;
use super::table::Kind::{Int4, Int8, Text};

/// The columns of a topic.
pub(super) fn columns(topic: Topic) -> &'static [Column] {
    match topic {
        Topic::Help => HELP,
        Topic::Version => VERSION,
        Topic::Pools => POOLS,
        Topic::Databases => DATABASES,
        Topic::Clients => CLIENTS,
        Topic::Servers => SERVERS,
        Topic::Stats => STATS,
        Topic::Fingerprints => FINGERPRINTS,
        Topic::Rewrites => REWRITES,
        Topic::Events => EVENTS,
        Topic::Config => CONFIG,
        Topic::Lists => LISTS,
        Topic::State => STATE,
    }
}

const HELP: &[Column] = &[("command", Text), ("does", Text)];

const VERSION: &[Column] = &[("version", Text)];

const POOLS: &[Column] = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_idle", Int4),
    ("sv_active", Int4),
    ("sv_idle", Int4),
    ("sv_idle_in_transaction", Int4),
    ("sv_login", Int4),
    ("sv_closing", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
];

const DATABASES: &[Column] = &[
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("pool_mode", Text),
    ("current_connections", Int4),
    ("paused", Int4),
];

const CLIENTS: &[Column] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("connected_s", Int8),
    ("wait", Int4),
    ("wait_us", Int4),
    ("remote_pid", Int4),
    ("application_name", Text),
    ("pinned", Text),
    ("id", Int4),
];

const SERVERS: &[Column] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("held_us", Int8),
    ("link", Int4),
    ("remote_pid", Int4),
    ("fingerprint", Text),
];

const STATS: &[Column] = &[
    ("database", Text),
    ("total_xact_count", Int8),
    ("total_query_count", Int8),
    ("total_received", Int8),
    ("total_sent", Int8),
    ("total_xact_time", Int8),
    ("total_query_time", Int8),
    ("total_wait_time", Int8),
    ("errors", Int8),
    ("rows", Int8),
    ("acquire_timeouts", Int8),
    ("exhausted_events", Int8),
    ("query_p95_us", Int8),
    ("query_p99_us", Int8),
    ("wait_p95_us", Int8),
];

const FINGERPRINTS: &[Column] = &[
    ("database", Text),
    ("fingerprint", Text),
    ("command", Text),
    ("calls", Int8),
    ("errors", Int8),
    ("rows", Int8),
    ("total_us", Int8),
    ("p50_us", Int8),
    ("p95_us", Int8),
    ("p99_us", Int8),
    ("wait_p95_us", Int8),
    ("query", Text),
];

const REWRITES: &[Column] = &[
    ("database", Text),
    ("id", Text),
    ("rows", Text),
    ("state", Text),
    ("applied", Int8),
    ("failures", Int8),
    ("original", Text),
    ("replacement", Text),
];

const EVENTS: &[Column] = &[("unix_us", Int8), ("kind", Text), ("id", Text)];

const CONFIG: &[Column] = &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];

const LISTS: &[Column] = &[("list", Text), ("items", Int8)];

const STATE: &[Column] = &[("key", Text), ("value", Text)];
