//! Looks at the pool twice a second, beside the phases.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::child::Asker;
use crate::report::evidence::PoolPoint;
use crate::report::model::Connections;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// A task that looks; it ends with this value.
#[derive(Debug)]
pub struct Watch {
    points: Arc<Mutex<Vec<PoolPoint>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to look; times count from `started`.
    pub fn start(asker: Asker, started: Instant) -> Self {
        let points = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&points);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Ok(snapshot) = asker.snapshot(false).await
                    && let Some(pool) = snapshot.pools.first()
                {
                    let point = point(pool, started.elapsed().as_secs_f64());
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(point);
                }
            }
        });
        Self { points, task }
    }

    /// All that was seen.
    pub fn points(&self) -> Vec<PoolPoint> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peaks from `from_s` seconds on; `created` is left to the counters.
    pub fn peaks(&self, from_s: f64) -> Connections {
        let mut peaks = Connections::default();
        for point in self.points().iter().filter(|point| point.at_s >= from_s) {
            peaks.active_max = peaks.active_max.max(point.active);
            peaks.idle_max = peaks.idle_max.max(point.idle);
            peaks.waiting_max = peaks.waiting_max.max(point.waiting);
        }
        peaks
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Servers lent now, in whatever state their clients are.
pub fn lent(pool: &stats::PoolSnapshot) -> u32 {
    pool.servers
        .iter()
        .filter(|(state, _)| matches!(state.as_str(), "active" | "idle_in_transaction"))
        .map(|(_, count)| *count)
        .sum()
}

/// Clients that wait now.
pub fn waiting(pool: &stats::PoolSnapshot) -> u32 {
    pool.clients.get("waiting").copied().unwrap_or(0)
}

fn point(pool: &stats::PoolSnapshot, at_s: f64) -> PoolPoint {
    PoolPoint {
        at_s,
        active: lent(pool),
        idle: pool.servers.get("idle").copied().unwrap_or(0),
        waiting: waiting(pool),
        max: pool.max,
        created: pool.created,
        closed: pool.closed.values().sum(),
    }
}
