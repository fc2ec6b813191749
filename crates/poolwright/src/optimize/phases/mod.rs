//! The five phases, one file each; here is what they share.

pub mod baseline;
pub mod indexes;
pub mod pool;
pub mod queries;
pub mod verify;

use lab::sustained::held;
use stats::Snapshot;

use super::memory;
use super::panels::Window;
use super::plan;
use super::session::{Measured, Session, unix_s};
use crate::report::evidence::Distribution;
use crate::report::model::{Phase, PhaseName, SlowQuery};

/// Statements shown as the slowest of a phase, and more where they are over [`SLOW_MS`].
const SLOWEST: usize = 5;
/// A statement whose P95 is over this is flagged.
pub const SLOW_MS: f64 = 100.0;
/// Most statements shown of a phase.
const SHOWN_MAX: usize = 20;

/// The runs that every phase makes.
pub struct Rates {
    own: Measured,
    target: Measured,
    /// Seconds from the start at which they began.
    from_s: f64,
    /// What the pooler counted over both.
    since: Snapshot,
}

/// Measures at the workload's own rate and at the target's.
///
/// # Errors
/// The load or the pooler does not answer.
pub async fn rates(session: &mut Session) -> Result<Rates, String> {
    let from_s = session.started.elapsed().as_secs_f64();
    let before = session.snapshot(false).await?;
    let baseline = session.phase == PhaseName::Baseline;
    let duration = if baseline { session.pace.own_baseline } else { session.pace.own };
    let own = session.run(session.own_rate(), duration).await?;
    session.watched().await;
    let window_s = unix_s();
    let target = session.run(session.target_rate(), session.pace.target).await?;
    session.windows.push(Window { phase: session.phase, from_s: window_s, to_s: unix_s() });
    let since = session.snapshot(false).await?.since(&before);
    Ok(Rates { own, target, from_s, since })
}

/// The phase as it stands in the report, from its runs.
pub fn phase(session: &mut Session, name: PhaseName, rates: &Rates) -> (Phase, Vec<SlowQuery>) {
    let run = &rates.target.run;
    let mut connections = session.watch.peaks(rates.from_s);
    connections.created = rates.since.pools.first().map_or(0, |pool| pool.created);
    session
        .evidence
        .distributions
        .push(Distribution { phase: name, points: rates.target.result.latency.curve() });
    let phase = Phase {
        name,
        pool: session.pooler.settings().limits.clone(),
        runs: vec![rates.own.run.clone(), run.clone()],
        p50_ms: run.p50_ms,
        p95_ms: run.p95_ms,
        p99_ms: run.p99_ms,
        errors: run.errors,
        exhaustion_events: run.exhaustion_events,
        connections,
        ..Phase::default()
    };
    (phase, slowest(name, &rates.since))
}

/// The five slowest statements by their own P95 on PostgreSQL, and all others over 100 ms.
#[allow(clippy::cast_precision_loss)]
fn slowest(phase: PhaseName, since: &Snapshot) -> Vec<SlowQuery> {
    let mut slow: Vec<SlowQuery> = since
        .fingerprints
        .iter()
        .filter(|print| print.calls > 0)
        .map(|print| SlowQuery {
            fingerprint: print.id.clone(),
            query: print.query.clone(),
            phase,
            calls: print.calls,
            p95_ms: print.server_time.quantile(0.95).map(|us| us as f64 / 1000.0),
            total_ms: print.server_time.sum_us() as f64 / 1000.0,
            findings: Vec::new(),
        })
        .collect();
    slow.sort_by(|a, b| b.p95_ms.unwrap_or(0.0).total_cmp(&a.p95_ms.unwrap_or(0.0)));
    let over = slow.iter().take_while(|query| query.p95_ms.is_some_and(|p95| p95 > SLOW_MS)).count();
    slow.truncate(over.clamp(SLOWEST, SHOWN_MAX));
    slow
}

/// Searches for the highest rate that is held, beginning with the rates already measured.
///
/// # Errors
/// The load or the pooler does not answer.
pub async fn sustained(
    session: &mut Session,
    phase: &mut Phase,
    rates: &Rates,
    tries: u32,
) -> Result<(), String> {
    let p95_ms = session.targets.p95_ms;
    let mut known = vec![rates.own.result.clone(), rates.target.result.clone()];
    let long_enough = session.pace.search.as_secs_f64();
    let first =
        known.iter().rfind(|result| held(result, p95_ms)).map_or(session.own_rate(), |r| r.offered_ops);
    known.retain(|result| result.duration_s >= long_enough);
    let duration = session.pace.search;
    let session = tokio::sync::Mutex::new(session);
    let tried = tokio::sync::Mutex::new(Vec::new());
    let found = lab::sustained::search(first, tries, p95_ms, |rate| {
        let known = known.iter().find(|result| (result.offered_ops - rate).abs() < 1e-6).cloned();
        let (session, tried) = (&session, &tried);
        async move {
            if let Some(result) = known {
                return Ok(result);
            }
            let measured = session.lock().await.run(rate, duration).await;
            let mut measured = measured.map_err(lab::load::LoadError::Connect)?;
            measured.run.search = true;
            tried.lock().await.push(measured.run);
            Ok(measured.result)
        }
    })
    .await
    .map_err(|error| error.to_string())?;
    phase.sustained_ops = found.map(|found| found.ops);
    phase.sustained_qps = found.map(|found| found.qps);
    let last = phase.runs.len().saturating_sub(1);
    phase.runs.splice(last..last, tried.into_inner());
    Ok(())
}

/// Waits until the pool has shrunk to what it keeps, and measures the memory of its backends; with Poolwright's
/// own if asked for. A remark where it cannot be had.
///
/// # Errors
/// The pooler or PostgreSQL does not answer.
pub async fn idle_memory(session: &mut Session, with_pooler: bool) -> Result<Option<u64>, String> {
    session.settle().await?;
    let limits = session.pooler.settings().limits.clone();
    let idle = std::time::Duration::from_millis(limits.idle_timeout_ms);
    let what = "waiting for the idle time-out, then reading the memory";
    let progress = session.progress.clone();
    let shrunk = progress.over(session.phase.as_str(), what, idle, shrink(session, idle, limits.min)).await?;
    let Some(count) = shrunk else {
        session.remark(format!("{}: the pool did not shrink to {} servers.", session.phase, limits.min));
        return Ok(None);
    };
    let client = plan::connect(&session.direct).await?;
    let backends = match memory::backends(&client, count).await {
        Ok(memory) => memory,
        Err(why) => {
            session.remark(format!("{}: idle memory was not measured: {why}.", session.phase));
            return Ok(None);
        }
    };
    let mut own = 0;
    if with_pooler {
        own = lab::memory::process(session.pooler.pid()).map_err(|error| error.to_string())?.own_bytes;
    }
    let kib = |bytes: u64| bytes / 1024;
    session.remark(format!(
        "{}: {count} idle backends hold {} KiB of their own{}; shared memory apart: {} KiB.",
        session.phase,
        kib(backends.own_bytes),
        if with_pooler { format!(" and Poolwright {} KiB", kib(own)) } else { String::new() },
        kib(backends.shared_bytes),
    ));
    Ok(Some(backends.own_bytes + own))
}

/// Waits for the idle time-out, and until no more than `min` servers are left; their number.
async fn shrink(session: &Session, idle: std::time::Duration, min: u32) -> Result<Option<u32>, String> {
    tokio::time::sleep(idle).await;
    for _ in 0..100 {
        let snapshot = session.snapshot(false).await?;
        let servers: u32 = snapshot.pools.iter().flat_map(|pool| pool.servers.values()).sum();
        if servers <= min {
            return Ok(Some(servers));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(None)
}
