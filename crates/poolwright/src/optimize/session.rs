//! What the phases share: the pooler, the load, and what has been seen so far.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::load::{LoadPlan, LoadResult};
use lab::workload::Workload;
use stats::Snapshot;
use tokio::task::JoinHandle;

use super::child::Pooler;
use super::pace::Pace;
use super::panels::Window;
use super::progress::Progress;
use super::watch::{self, Watch};
use crate::report::evidence::{Evidence, LatencyPoint, Mark};
use crate::report::model::{PhaseName, Run, Targets};

/// Most connections of the load; the pooler takes 1,000 clients.
const CONNECTIONS_MAX: usize = 700;
/// Longest wait until nothing of a run is left in the pool.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Everything that a phase works with.
pub struct Session {
    /// URL of PostgreSQL itself.
    pub direct: String,
    /// URL through the pooler.
    pub through: String,
    /// The pooler.
    pub pooler: Pooler,
    /// What arrives.
    pub workload: Arc<Workload>,
    /// Faults that the application has repaired.
    pub fixed: BTreeSet<String>,
    /// How long.
    pub pace: Pace,
    /// What has to be reached.
    pub targets: Targets,
    /// Draws arrivals and parameters; the same in every phase.
    pub seed: u64,
    /// Runs of the load so far.
    pub rounds: u64,
    /// Time zero of the charts.
    pub started: Instant,
    /// What the charts show.
    pub evidence: Evidence,
    /// The moving line.
    pub progress: Progress,
    /// Looks at the pool meanwhile.
    pub watch: Watch,
    /// The phase under way.
    pub phase: PhaseName,
    /// The runs at the target's rate, for Prometheus.
    pub windows: Vec<Window>,
    /// Ends when Prometheus has scraped the pooler for the first time.
    pub first_scrape: Option<JoinHandle<bool>>,
}

/// A run with what the pooler counted in it.
#[derive(Clone)]
pub struct Measured {
    /// For the report.
    pub run: Run,
    /// What the generator measured.
    pub result: LoadResult,
}

impl Session {
    /// The workload's own rate, in operations a second.
    pub fn own_rate(&self) -> f64 {
        self.workload.rate_ops
    }

    /// The target's rate: as many operations a second as queries are wanted. An operation is one query or more, so
    /// this asks no less than the target does, whatever the fixes take off the queries of an operation.
    pub fn target_rate(&self) -> f64 {
        self.targets.qps
    }

    /// Begins a phase: a mark in the charts and in the metrics.
    ///
    /// # Errors
    /// The pooler does not answer.
    pub async fn begin(&mut self, phase: PhaseName) -> Result<(), String> {
        self.phase = phase;
        self.evidence.marks.push(Mark { at_s: self.started.elapsed().as_secs_f64(), phase });
        self.event("phase", phase.as_str()).await
    }

    /// Notes something that happened in the pooler's metrics.
    ///
    /// # Errors
    /// The pooler does not answer.
    pub async fn event(&self, kind: &str, id: &str) -> Result<(), String> {
        self.pooler.asker().event(kind, id).await.map_err(|error| error.to_string())
    }

    /// All the pooler has counted; the record of checkouts only if asked for.
    ///
    /// # Errors
    /// The pooler does not answer.
    pub async fn snapshot(&self, checkouts: bool) -> Result<Snapshot, String> {
        self.pooler.asker().snapshot(checkouts).await.map_err(|error| error.to_string())
    }

    /// Waits until Prometheus sees what happens, some seconds after its start; a remark where it does not.
    pub async fn watched(&mut self) {
        let Some(first_scrape) = self.first_scrape.take() else { return };
        if !first_scrape.await.unwrap_or(false) {
            self.remark(
                "Prometheus did not scrape the pooler in time: panels may lack the baseline.".to_owned(),
            );
        }
    }

    /// A remark for the reader of the report.
    pub fn remark(&mut self, text: String) {
        self.progress.say(&text);
        self.evidence.remarks.push(text);
    }

    /// Waits until the load's clients have left and nobody holds or awaits a server; a remark where that takes too
    /// long.
    ///
    /// # Errors
    /// The pooler does not answer.
    pub async fn settle(&mut self) -> Result<(), String> {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            let snapshot = self.snapshot(false).await?;
            let idle = snapshot.pools.iter().all(|pool| watch::lent(pool) == 0 && watch::waiting(pool) == 0);
            if idle && snapshot.client_connections == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                self.remark(format!(
                    "{}: {} clients of the run before were still there after {} s.",
                    self.phase,
                    snapshot.client_connections,
                    SETTLE_MAX.as_secs()
                ));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs the load once. The same rate gives the same arrivals in every phase, with parameters drawn anew.
    ///
    /// # Errors
    /// The load or the pooler does not answer.
    pub async fn run(&mut self, rate_ops: f64, duration: Duration) -> Result<Measured, String> {
        self.settle().await?;
        self.rounds += 1;
        let before = self.snapshot(false).await?;
        let plan = LoadPlan {
            url: self.through.clone(),
            workload: Arc::clone(&self.workload),
            fixed: self.fixed.clone(),
            rate_ops,
            duration,
            seed: self.seed,
            round: self.rounds,
            connections_max: CONNECTIONS_MAX,
        };
        let at_s = self.started.elapsed().as_secs_f64();
        let what = format!("{rate_ops:.0} operations/s for {} s", duration.as_secs());
        let result = self
            .progress
            .over(self.phase.as_str(), &what, duration, lab::load::run(plan))
            .await
            .map_err(|error| error.to_string())?;
        let since = self.snapshot(false).await?.since(&before);
        self.evidence.latency.extend(
            result
                .timeline
                .iter()
                .filter_map(|tick| Some(LatencyPoint { at_s: at_s + tick.t_s, p95_ms: tick.p95_ms? })),
        );
        let run = report_of(&result, &since);
        if !result.valid {
            self.remark(format!(
                "{}: the run at {rate_ops:.0} operations/s is invalid: the generator itself was late (P99 {:.1} ms).",
                self.phase,
                run.lateness_p99_ms.unwrap_or_default()
            ));
        }
        for sample in result.error_samples.iter().take(3) {
            self.remark(format!(
                "{}: at {rate_ops:.0} operations/s an operation failed: {sample}",
                self.phase
            ));
        }
        Ok(Measured { run, result })
    }
}

/// Wall clock in seconds since 1970.
pub fn unix_s() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A run as it stands in the report.
fn report_of(result: &LoadResult, since: &Snapshot) -> Run {
    let pool = since.pools.first();
    let ms = |histogram: &stats::Histogram| {
        #[allow(clippy::cast_precision_loss)]
        histogram.quantile(0.95).map(|us| us as f64 / 1000.0)
    };
    #[allow(clippy::cast_precision_loss)]
    Run {
        offered_ops: result.offered_ops,
        duration_s: result.duration_s,
        samples: result.latency.count(),
        qps: result.qps,
        p50_ms: result.p(0.5),
        p95_ms: result.p(0.95),
        p99_ms: result.p(0.99),
        query_p95_ms: pool.and_then(|pool| ms(&pool.query)),
        acquire_wait_p95_ms: pool.and_then(|pool| ms(&pool.acquire_wait)),
        saturated: result.saturated,
        lateness_p99_ms: result.lateness.any_quantile_ms(0.99),
        errors: result.errors,
        exhaustion_events: pool.map_or(0, |pool| pool.exhausted_events),
        exhaustion_seconds: pool.map_or(0.0, |pool| pool.exhausted_us as f64 / 1e6),
        valid: result.valid,
        search: false,
    }
}
