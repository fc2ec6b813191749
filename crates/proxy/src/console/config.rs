//! SHOW CONFIG: every setting, without secrets.

use std::time::Duration;

use super::table::Row;
use crate::settings::{AuthMethod, PoolSettings, ServerSettings, Settings};

/// `0`, `250ms`, `30s`, `5min`, `1h`: as the file has it.
pub(super) fn human(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 if duration.is_zero() => "0".to_owned(),
        0 => format!("{}us", duration.as_micros()),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}min", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

fn row(key: impl Into<String>, value: impl ToString, default: impl ToString, changeable: bool) -> Row {
    let changeable = if changeable { "yes" } else { "no" };
    vec![key.into().into(), value.to_string().into(), default.to_string().into(), changeable.into()]
}

/// Keys as in the file; `changeable` is yes where a reload takes effect.
pub(super) fn rows(settings: &Settings) -> Vec<Row> {
    let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    let method = match settings.auth {
        AuthMethod::Scram => "scram-sha-256",
        AuthMethod::Md5 => "md5",
        AuthMethod::Trust => "trust",
    };
    let mut rows = vec![
        row("listen", listen.join(", "), "127.0.0.1:6432", false),
        row("client_max", settings.client_max, 1_000, true),
        row("workers", settings.workers, "cores, at most 4", false),
        row("login_timeout", human(settings.login_timeout), "15s", true),
        row("auth.method", method, "scram-sha-256", true),
        row("console.admins", names(&settings.console.admins), "", true),
        row("console.viewers", names(&settings.console.viewers), "", true),
    ];
    for pool in &settings.pools {
        rows.extend(pool_rows(pool));
    }
    rows
}

fn names(users: &[crate::settings::UserSettings]) -> String {
    users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn pool_rows(pool: &PoolSettings) -> Vec<Row> {
    let server: &ServerSettings = &pool.server;
    let usual = PoolSettings::new("", server.clone());
    let key = |name: &str| format!("pool.{}.{name}", pool.name);
    let address = format!("postgres://{}@{}/{}", server.user, server.address, server.database);
    let span = |name: &str, of: fn(&PoolSettings) -> Duration| {
        row(key(name), human(of(pool)), human(of(&usual)), true)
    };
    vec![
        row(key("server"), address, "", false),
        row(key("max"), pool.max, usual.max, true),
        row(key("min"), pool.min, usual.min, true),
        row(key("mode"), pool.mode.as_str(), usual.mode.as_str(), false),
        span("idle_timeout", |pool| pool.idle_timeout),
        span("query_timeout", |pool| pool.query_timeout),
        span("acquire_timeout", |pool| pool.acquire_timeout),
        row(key("connect_timeout"), human(server.connect_timeout), "5s", true),
        span("lifetime", |pool| pool.lifetime),
        span("idle_in_transaction_timeout", |pool| pool.idle_in_transaction_timeout),
        row(key("statements_per_client"), pool.statements_per_client, usual.statements_per_client, true),
        row(key("statements_per_server"), pool.statements_per_server, usual.statements_per_server, true),
        row(key("users"), names(&pool.users), "", true),
    ]
}
