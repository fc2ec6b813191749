//! `report.json`: the numbers of a run, in a form that programs may rely on.
//!
//! A field is null where it was not measured; a number is never made up. Milliseconds are decimal, bytes whole.

use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning or goes away; additions leave it.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Where and with what it was measured.
    pub environment: Environment,
    /// What had to be reached.
    pub targets: Targets,
    /// The phases that ran, in their order.
    pub phases: Vec<Phase>,
    /// The slowest fingerprints per phase.
    pub slow_queries: Vec<SlowQuery>,
    /// Indexes proposed, with what became of them.
    pub indexes: Vec<Index>,
    /// Advice on queries.
    pub findings: Vec<Finding>,
    /// The dashboard's main panels, answered by Prometheus itself; empty without Prometheus.
    pub prometheus: Vec<Panel>,
    /// Whether all targets hold.
    pub verdict: Verdict,
}

/// Where and with what the numbers were measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Poolwright's version.
    pub poolwright: String,
    /// PostgreSQL's `server_version`.
    pub postgres: String,
    /// Processor cores this process may use.
    pub cores: usize,
    /// Scale of the example's data; null on a database that already existed.
    pub scale: Option<f64>,
    /// Seed of the load.
    pub seed: u64,
    /// Short runs on small data: not a proof.
    pub quick: bool,
}

/// What phase 5 must reach. Each is a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// P95 latency of an operation must stay below this, in milliseconds.
    pub p95_ms: f64,
    /// Queries a second to sustain.
    pub qps: f64,
    /// Exhaustion events allowed at the target's rate.
    pub exhaustion_events: u64,
    /// Idle memory after, over idle memory before, at most.
    pub memory_ratio: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self { p95_ms: 75.0, qps: 50.0, exhaustion_events: 0, memory_ratio: 0.5 }
    }
}

/// The five phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseName {
    /// The pool as the team has it.
    #[default]
    Baseline,
    /// Sizes and time-outs from what was recorded.
    Pool,
    /// Indexes built, measured, kept or dropped.
    Indexes,
    /// Rewrites and changes of the application.
    Queries,
    /// The same load again, against the targets.
    Verify,
}

impl PhaseName {
    /// The name as it stands in `report.json`, in metrics and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Pool => "pool",
            Self::Indexes => "indexes",
            Self::Queries => "queries",
            Self::Verify => "verify",
        }
    }
}

impl std::fmt::Display for PhaseName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The pool's settings during a phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// Servers at most.
    pub max: u32,
    /// Servers kept warm.
    pub min: u32,
    /// Idle time-out in milliseconds.
    pub idle_timeout_ms: u64,
    /// Query time-out in milliseconds; 0 is none.
    pub query_timeout_ms: u64,
}

/// One phase with its runs. The five bare numbers are those of the run at the target's rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Which phase.
    pub name: PhaseName,
    /// The pool's settings in it.
    pub pool: PoolSettings,
    /// One run for each offered rate.
    pub runs: Vec<Run>,
    /// Median latency of an operation, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile, in milliseconds; a lower bound where the run was saturated.
    pub p95_ms: Option<f64>,
    /// 99th percentile; null from fewer than 1,000 samples.
    pub p99_ms: Option<f64>,
    /// Operations that failed.
    pub errors: u64,
    /// Times that somebody waited with no server free.
    pub exhaustion_events: u64,
    /// Highest rate held, in operations a second; null where it was not searched for or none was held.
    pub sustained_ops: Option<f64>,
    /// Queries a second at that rate.
    pub sustained_qps: Option<f64>,
    /// Connections by state.
    pub connections: Connections,
    /// Memory of the idle connections (and Poolwright's, in verify), in bytes.
    pub idle_memory_bytes: Option<u64>,
}

/// Peaks over a phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Servers lent at once.
    pub active_max: u32,
    /// Servers idle at once.
    pub idle_max: u32,
    /// Clients waiting at once.
    pub waiting_max: u32,
    /// Server connections opened.
    pub created: u64,
}

/// One open-loop run at one offered rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Operations offered a second.
    pub offered_ops: f64,
    /// Seconds during which operations were offered.
    pub duration_s: f64,
    /// Operations measured.
    pub samples: u64,
    /// Queries completed a second.
    pub qps: f64,
    /// Median, in milliseconds, from the intended time of sending.
    pub p50_ms: Option<f64>,
    /// 95th percentile; a lower bound where `saturated`.
    pub p95_ms: Option<f64>,
    /// 99th percentile; null from fewer than 1,000 samples.
    pub p99_ms: Option<f64>,
    /// 95th percentile of single queries on PostgreSQL, in milliseconds, as Poolwright saw them.
    pub query_p95_ms: Option<f64>,
    /// 95th percentile of the wait for a server, in milliseconds.
    pub acquire_wait_p95_ms: Option<f64>,
    /// The rate was not held.
    pub saturated: bool,
    /// The generator's own lateness, 99th percentile, in milliseconds.
    pub lateness_p99_ms: Option<f64>,
    /// Operations that failed.
    pub errors: u64,
    /// Times that somebody waited with no server free.
    pub exhaustion_events: u64,
    /// How long that lasted, all together, in seconds.
    pub exhaustion_seconds: f64,
    /// False when the generator's own lateness (P99) is over 1 ms and over a tenth of the P95.
    pub valid: bool,
    /// A try of the search for the sustained rate.
    pub search: bool,
}

/// A slow fingerprint in one phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlowQuery {
    /// 16 hexadecimal digits.
    pub fingerprint: String,
    /// The query without its literals.
    pub query: String,
    /// The phase it was seen in.
    pub phase: PhaseName,
    /// Executions.
    pub calls: u64,
    /// 95th percentile of its time on PostgreSQL, in milliseconds.
    pub p95_ms: Option<f64>,
    /// All its time on PostgreSQL, in milliseconds.
    pub total_ms: f64,
    /// Findings and indexes that speak of it.
    pub findings: Vec<String>,
}

/// An index proposed, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// `idx_<table>_<columns>`.
    pub name: String,
    /// The statement that builds it.
    pub sql: String,
    /// Its table.
    pub table: String,
    /// Its columns, leading first.
    pub columns: Vec<String>,
    /// Why it was proposed.
    pub reason: String,
    /// The planner's plan without it.
    pub plan_before: String,
    /// The planner's plan with it.
    pub plan_after: String,
    /// The planner's total cost without it.
    pub cost_before: Option<f64>,
    /// The planner's total cost with it.
    pub cost_after: Option<f64>,
    /// Its size on disk; null where it was not built.
    pub size_bytes: Option<u64>,
    /// How long the build took; null where it was not built.
    pub build_ms: Option<u64>,
    /// PostgreSQL says it is valid.
    pub valid: bool,
    /// It helped, and stays.
    pub kept: bool,
}

/// Advice on a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, for `--accept`.
    pub id: String,
    /// Which fault.
    pub kind: String,
    /// The fingerprint concerned.
    pub fingerprint: String,
    /// What was observed.
    pub evidence: String,
    /// The statement as it should be; null where only the application can tell.
    pub sql_after: Option<String>,
    /// The new statement returns the same rows.
    pub same_rows: bool,
    /// Somebody agreed to it.
    pub accepted: bool,
    /// It was in force in the last phase.
    pub applied: bool,
}

/// One line of one panel of the dashboard, asked of Prometheus before and after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// The panel's title; where it has several lines, with the line's name behind a colon.
    pub panel: String,
    /// Unit of the two numbers; empty for plain counts.
    #[serde(default)]
    pub unit: String,
    /// Its PromQL as it was sent: variables filled in, ranges as long as the windows measured.
    pub expr: String,
    /// Its value at the end of the baseline's run at the target's rate; null when Prometheus had none.
    pub before: Option<f64>,
    /// Its value at the end of verify's.
    pub after: Option<f64>,
}

/// Whether all targets hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// All checks passed.
    pub passed: bool,
    /// One for each target.
    pub checks: Vec<Check>,
}

/// One target, before and after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Unit of the three numbers.
    pub unit: String,
    /// The bound.
    pub target: f64,
    /// Measured in baseline.
    pub before: Option<f64>,
    /// Measured in verify.
    pub after: Option<f64>,
    /// Where and how it was measured.
    pub measured_at: String,
    /// It holds.
    pub passed: bool,
}
