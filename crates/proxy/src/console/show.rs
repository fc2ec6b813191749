//! What SHOW shows.

use std::time::Duration;

use stats::{Histogram, PoolSnapshot, Snapshot};

use super::command::Topic;
use super::config;
use super::table::{Cell, Row};
use crate::login::Login;
use crate::settings::{ServerAddress, Settings};

/// Most fingerprints shown: those that took the most time.
const FINGERPRINTS_SHOWN: usize = 100;

/// The rows of a topic, now.
pub(super) fn rows(topic: Topic, login: &Login) -> Vec<Row> {
    let settings = login.settings.read().clone();
    match topic {
        Topic::Help => super::HELP.iter().map(|(name, does)| vec![(*name).into(), (*does).into()]).collect(),
        Topic::Version => vec![vec![super::VERSION.into()]],
        Topic::Pools => login.snapshot().pools.iter().map(pool).collect(),
        Topic::Databases => databases(login, &settings),
        Topic::Clients => clients(login, &settings),
        Topic::Servers => servers(login, &settings),
        Topic::Stats => login.snapshot().pools.iter().map(stats_of).collect(),
        Topic::Fingerprints => fingerprints(login.snapshot()),
        Topic::Rewrites => rewrites(&login.snapshot(), &settings),
        Topic::Events => {
            let row = |event: &stats::Event| {
                vec![event.unix_us.into(), event.kind.clone().into(), event.id.clone().into()]
            };
            login.events.lock().iter().map(row).collect()
        }
        Topic::Config => config::rows(&settings),
        Topic::Lists => lists(login, &settings),
        Topic::State => state(login, &settings),
    }
}

fn pool(pool: &PoolSnapshot) -> Row {
    let server = |state: &str| pool.servers.get(state).copied().unwrap_or(0);
    let client = |state: &str| pool.clients.get(state).copied().unwrap_or(0);
    vec![
        pool.name.clone().into(),
        pool.user.clone().into(),
        // As PgBouncer counts: linked to a server, or idle with nothing waiting.
        (client("active") + client("idle_in_transaction") + client("idle")).into(),
        client("waiting").into(),
        client("idle").into(),
        (server("active") + server("idle_in_transaction")).into(),
        server("idle").into(),
        server("idle_in_transaction").into(),
        server("connecting").into(),
        server("closing").into(),
        (pool.oldest_wait_us / 1_000_000).into(),
        (pool.oldest_wait_us % 1_000_000).into(),
        pool.mode.clone().into(),
        pool.max.into(),
        pool.min.into(),
    ]
}

fn stats_of(pool: &PoolSnapshot) -> Row {
    let p = |histogram: &Histogram, quantile| Cell::from(histogram.quantile(quantile));
    vec![
        pool.name.clone().into(),
        pool.transactions.values().sum::<u64>().into(),
        pool.queries.into(),
        pool.client_in_bytes.into(),
        pool.client_out_bytes.into(),
        pool.transaction.sum_us().into(),
        pool.query.sum_us().into(),
        pool.acquire_wait.sum_us().into(),
        pool.errors.values().sum::<u64>().into(),
        pool.rows.into(),
        pool.acquires.get("timeout").copied().unwrap_or(0).into(),
        pool.exhausted_events.into(),
        p(&pool.query, 0.95),
        p(&pool.query, 0.99),
        p(&pool.acquire_wait, 0.95),
    ]
}

fn databases(login: &Login, settings: &Settings) -> Vec<Row> {
    let snapshot = login.snapshot();
    let row = |(at, (pool, now)): (usize, (&crate::settings::PoolSettings, &PoolSnapshot))| {
        let index = crate::PoolIndex(at as u16);
        let (host, port) = match &pool.server.address {
            ServerAddress::Tcp { host, port } => (host.clone(), Cell::Number((*port).into())),
            ServerAddress::Unix(path) => (path.display().to_string(), Cell::Null),
        };
        vec![
            pool.name.clone().into(),
            host.into(),
            port,
            pool.server.database.clone().into(),
            pool.server.user.clone().into(),
            pool.max.into(),
            pool.min.into(),
            pool.mode.as_str().into(),
            now.servers.values().sum::<u32>().into(),
            login.workers.lent(index).1.into(),
        ]
    };
    settings.pools.iter().zip(&snapshot.pools).enumerate().map(row).collect()
}

fn clients(login: &Login, settings: &Settings) -> Vec<Row> {
    let row = |client: crate::worker::listing::ClientRow| {
        let name = settings.pools.get(client.pool).map_or("", |pool| pool.name.as_str());
        vec![
            "C".into(),
            client.user.into(),
            name.into(),
            client.state.into(),
            client.peer.into(),
            (client.connected_us / 1_000_000).into(),
            (client.waiting_us / 1_000_000).into(),
            (client.waiting_us % 1_000_000).into(),
            pid(client.remote_pid),
            client.application.into(),
            client.pinned.map_or(Cell::Null, Cell::from),
            pid(Some(client.id)),
        ]
    };
    login.workers.client_rows().into_iter().map(row).collect()
}

fn pid(pid: Option<i32>) -> Cell {
    pid.and_then(|pid| u64::try_from(pid).ok()).into()
}

fn servers(login: &Login, settings: &Settings) -> Vec<Row> {
    let row = |server: crate::worker::listing::ServerRow| {
        let pool = settings.pools.get(server.pool);
        vec![
            "S".into(),
            pool.map_or("", |pool| pool.server.user.as_str()).into(),
            pool.map_or("", |pool| pool.name.as_str()).into(),
            server.state.into(),
            pool.map_or_else(String::new, |pool| pool.server.address.to_string()).into(),
            server.held_us.into(),
            pid(server.client),
            pid(Some(server.remote_pid)),
            server.fingerprint.map_or(Cell::Null, Cell::from),
        ]
    };
    login.workers.server_rows().into_iter().map(row).collect()
}

fn fingerprints(mut snapshot: Snapshot) -> Vec<Row> {
    snapshot.fingerprints.sort_by_key(|f| std::cmp::Reverse(f.server_time.sum_us()));
    snapshot.fingerprints.truncate(FINGERPRINTS_SHOWN);
    let row = |f: stats::FingerprintSnapshot| {
        vec![
            f.pool.into(),
            f.id.into(),
            f.command.into(),
            f.calls.into(),
            f.errors.into(),
            f.rows.into(),
            f.server_time.sum_us().into(),
            f.server_time.quantile(0.5).into(),
            f.server_time.quantile(0.95).into(),
            f.server_time.quantile(0.99).into(),
            f.acquire_wait.quantile(0.95).into(),
            f.query.into(),
        ]
    };
    snapshot.fingerprints.into_iter().map(row).collect()
}

/// Those of the settings, and those revoked by taking them out.
fn rewrites(snapshot: &Snapshot, settings: &Settings) -> Vec<Row> {
    let row = |now: &stats::RewriteState| {
        let pool = settings.pools.iter().find(|pool| pool.name == now.pool);
        let told = pool.and_then(|pool| pool.rewrites.iter().find(|rewrite| rewrite.id == now.id));
        let text = |text: Option<&String>| text.map_or(Cell::Null, |text| text.as_str().into());
        vec![
            now.pool.clone().into(),
            now.id.clone().into(),
            told.map_or(Cell::Null, |told| if told.same_rows { "same" } else { "different" }.into()),
            now.state.clone().into(),
            now.applied.into(),
            now.failures.into(),
            text(told.map(|told| &told.original)),
            text(told.map(|told| &told.replacement)),
        ]
    };
    snapshot.rewrites.iter().map(row).collect()
}

fn lists(login: &Login, settings: &Settings) -> Vec<Row> {
    let snapshot = login.snapshot();
    let users: std::collections::BTreeSet<&str> = settings
        .pools
        .iter()
        .flat_map(|pool| {
            let own = pool.users.is_empty().then_some(pool.server.user.as_str());
            pool.users.iter().map(|user| user.name.as_str()).chain(own)
        })
        .collect();
    let servers: u32 = snapshot.pools.iter().flat_map(|pool| pool.servers.values()).sum();
    [
        ("databases", settings.pools.len() as u64),
        ("users", users.len() as u64),
        ("pools", settings.pools.len() as u64),
        ("used_clients", snapshot.client_connections),
        ("free_clients", snapshot.client_max.saturating_sub(snapshot.client_connections)),
        ("used_servers", servers.into()),
        ("fingerprints", snapshot.fingerprints.len() as u64),
        ("rewrites", snapshot.rewrites.len() as u64),
    ]
    .into_iter()
    .map(|(name, items)| vec![name.into(), items.into()])
    .collect()
}

fn state(login: &Login, settings: &Settings) -> Vec<Row> {
    let paused =
        (0..settings.pools.len()).filter(|at| login.workers.lent(crate::PoolIndex(*at as u16)).1).count();
    let draining = *login.draining.borrow();
    let yes = |truth: bool| Cell::from(if truth { "yes" } else { "no" });
    vec![
        vec!["active".into(), yes(paused == 0 && !draining)],
        vec!["paused_pools".into(), paused.to_string().into()],
        vec!["draining".into(), yes(draining)],
        vec!["uptime".into(), config::human(Duration::from_secs(login.started.elapsed().as_secs())).into()],
    ]
}
