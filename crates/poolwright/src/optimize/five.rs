//! The five phases in their order, and the report of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use lab::workload::Workload;

use super::accept::Acceptance;
use super::child::Pooler;
use super::pace::Pace;
use super::phases::{baseline, indexes, pool, queries, verify};
use super::process::free_address;
use super::progress::Progress;
use super::session::Session;
use super::settings::Settings;
use super::watch::Watch;
use super::{plan, verdict};
use crate::report::evidence::Evidence;
use crate::report::model::{
    Environment, PhaseName, PoolSettings, Report, SCHEMA_VERSION, SlowQuery, Targets,
};

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// URL of PostgreSQL.
    pub url: String,
    /// What arrives.
    pub workload: Workload,
    /// How long.
    pub pace: Pace,
    /// What has to be reached.
    pub targets: Targets,
    /// Draws arrivals and parameters.
    pub seed: u64,
    /// Scale of the example's data, where it is the example.
    pub scale: Option<f64>,
    /// Indexes may be built.
    pub build: bool,
    /// What the user agreed to.
    pub accept: Acceptance,
    /// Folder of the report.
    pub out: PathBuf,
}

/// Starts the pooler, runs the phases, and judges. To be called on the main thread: see `Process::start`.
///
/// # Errors
/// A sentence for the user; everything started has been ended.
pub async fn run(options: Options, progress: &Progress) -> Result<(Report, Evidence), String> {
    let client = plan::connect(&options.url).await?;
    let version = client.query_one("SHOW server_version", &[]).await.map_err(|error| plan::told(&error))?;
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        environment: Environment {
            poolwright: env!("CARGO_PKG_VERSION").to_owned(),
            postgres: version.get(0),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            scale: options.scale,
            seed: options.seed,
            quick: options.pace.quick,
        },
        targets: options.targets.clone(),
        ..Report::default()
    };
    drop(client);
    let folder = tempfile::Builder::new()
        .prefix("poolwright-run-")
        .tempdir()
        .map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let (accept, out, build) = (options.accept.clone(), options.out.clone(), options.build);
    let mut session = start(options, folder.path(), progress).await?;
    phases(&mut session, &mut report, &accept, &out, build).await?;
    name_findings(&mut report);
    report.verdict = verdict::judge(&report.phases, &report.targets);
    session.evidence.pool = session.watch.points();
    Ok((report, session.evidence))
}

async fn phases(
    session: &mut Session,
    report: &mut Report,
    accept: &Acceptance,
    out: &std::path::Path,
    build: bool,
) -> Result<(), String> {
    let (phase, slow) = baseline::run(session).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    let (phase, slow) = pool::run(session).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    let (phase, slow, built) = indexes::run(session, out, build).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    report.indexes = built;
    let (phase, slow, findings) = queries::run(session, accept).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    report.findings = findings;
    let (phase, slow) = verify::run(session).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    Ok(())
}

async fn start(options: Options, folder: &std::path::Path, progress: &Progress) -> Result<Session, String> {
    let failed = |error: std::io::Error| format!("no port can be had: {error}");
    let config: tokio_postgres::Config =
        options.url.parse().map_err(|error| format!("this is not a database URL: {error}"))?;
    let pool = config.get_dbname().or(config.get_user()).unwrap_or("postgres").to_owned();
    let settings = Settings {
        listen: free_address().map_err(failed)?,
        metrics: free_address().map_err(failed)?,
        pool,
        server: options.url.clone(),
        limits: PoolSettings {
            max: options.workload.before.max,
            min: options.workload.before.min,
            idle_timeout_ms: options.pace.idle_before_ms,
            query_timeout_ms: 0,
        },
        rewrites: Vec::new(),
    };
    let through = settings.client_url()?;
    progress.step("baseline", "starting the pooler");
    let pooler = Pooler::start(folder, settings, false).await.map_err(|error| error.to_string())?;
    let started = Instant::now();
    Ok(Session {
        direct: options.url,
        through,
        watch: Watch::start(pooler.asker().clone(), started),
        pooler,
        workload: Arc::new(options.workload),
        fixed: BTreeSet::new(),
        pace: options.pace,
        targets: options.targets,
        seed: options.seed,
        started,
        evidence: Evidence::default(),
        progress: progress.clone(),
        phase: PhaseName::Baseline,
    })
}

/// Lets each slow statement name the findings that speak of it, and the indexes on its tables that it gained.
fn name_findings(report: &mut Report) {
    let Report { slow_queries, findings, .. } = report;
    for SlowQuery { fingerprint, findings: named, .. } in slow_queries {
        named.extend(findings.iter().filter(|f| f.fingerprint == *fingerprint).map(|f| f.id.clone()));
    }
}
