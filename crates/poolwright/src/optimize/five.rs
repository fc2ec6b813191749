//! The five phases in their order, and the report of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::workload::Workload;
use tempfile::TempDir;

use super::accept::Acceptance;
use super::child::{Pooler, free_address};
use super::pace::Pace;
use super::phases::indexes::Consent;
use super::phases::{baseline, indexes, pool, queries, verify};
use super::progress::Progress;
use super::prometheus::Prometheus;
use super::session::{Session, unix_s};
use super::settings::Settings;
use super::watch::Watch;
use super::{panels, plan, prometheus, verdict};
use crate::report::Folder;
use crate::report::evidence::Evidence;
use crate::report::model::{
    Environment, PhaseName, PoolSettings, Report, SCHEMA_VERSION, SlowQuery, Targets,
};

/// How often Prometheus scrapes.
const SCRAPE: Duration = Duration::from_secs(1);

/// How long its first scrape may take; it looks for what to scrape every five seconds.
const FIRST_SCRAPE_MAX: Duration = Duration::from_secs(15);

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
    pub build: Consent,
    /// What the user agreed to.
    pub accept: Acceptance,
    /// Pooler and Prometheus may be left running afterwards.
    pub keep: bool,
}

/// What came of it, and what still runs beside it; dropping this ends that.
pub struct Outcome {
    /// The numbers.
    pub report: Report,
    /// The charts.
    pub evidence: Evidence,
    /// What still runs.
    pub beside: Beside,
}

/// The pooler, its folder, and the Prometheus that scrapes it.
pub struct Beside {
    /// The pooler.
    pub pooler: Pooler,
    /// URL through the pooler.
    pub through: String,
    /// Its Prometheus, where one is installed.
    pub prometheus: Option<Prometheus>,
    /// The folder of the pooler's file and log.
    pub folder: TempDir,
}

/// Starts the pooler, runs the phases, and judges.
///
/// # Errors
/// A sentence for the user; everything started has been ended.
pub async fn run(options: Options, out: &mut Folder, progress: &Progress) -> Result<Outcome, String> {
    let mut report = head(&options).await?;
    let folder = tempfile::Builder::new()
        .prefix("poolwright-run-")
        .tempdir()
        .map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let (accept, build, keep) = (options.accept.clone(), options.build, options.keep);
    let mut session = start(options, folder.path(), progress).await?;
    let began_s = unix_s();
    let prometheus = watched(&mut session, keep).await;
    phases(&mut session, &mut report, &accept, out, build).await?;
    report.verdict = verdict::judge(&report.phases, &report.targets);
    let prometheus = match prometheus {
        Some(prometheus) => Some(asked(&mut session, &mut report, prometheus, began_s).await?),
        None => None,
    };
    session.evidence.pool = session.watch.points();
    let Session { evidence, pooler, through, .. } = session;
    Ok(Outcome { report, evidence, beside: Beside { pooler, through, prometheus, folder } })
}

/// The report's head: where and with what it is measured.
async fn head(options: &Options) -> Result<Report, String> {
    let client = plan::connect(&options.url).await?;
    let version = client.query_one("SHOW server_version", &[]).await.map_err(|error| plan::told(&error))?;
    Ok(Report {
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
    })
}

/// A Prometheus on the pooler's metrics; a remark where there is none.
async fn watched(session: &mut Session, keep: bool) -> Option<Prometheus> {
    let metrics = session.pooler.settings().metrics.clone();
    let starting = move || prometheus::start(&metrics, SCRAPE, keep);
    match tokio::task::spawn_blocking(starting).await {
        Ok(Ok(prometheus)) => {
            let address = prometheus.address().to_owned();
            let scraped = move || lab::prometheus::wait_for_scrape(&address, FIRST_SCRAPE_MAX);
            session.first_scrape = Some(tokio::task::spawn_blocking(scraped));
            Some(prometheus)
        }
        Ok(Err(error)) => {
            session.remark(format!("{error}."));
            None
        }
        Err(error) => {
            session.remark(format!("Prometheus was not started: {error}."));
            None
        }
    }
}

/// Asks Prometheus what the dashboard would; a remark where it does not answer.
async fn asked(
    session: &mut Session,
    report: &mut Report,
    prometheus: Prometheus,
    began_s: f64,
) -> Result<Prometheus, String> {
    session.progress.step("verify", "asking Prometheus for the dashboard's panels");
    let windows = session.windows.clone();
    let asking = move || {
        let answers = panels::ask(&prometheus, began_s, unix_s(), &windows);
        (prometheus, answers)
    };
    let (prometheus, answers) =
        tokio::task::spawn_blocking(asking).await.map_err(|error| error.to_string())?;
    match answers {
        Ok(answers) => {
            report.prometheus = answers.panels;
            session.evidence.panels = answers.charts;
        }
        Err(error) => session.remark(format!("{error}.")),
    }
    Ok(prometheus)
}

async fn phases(
    session: &mut Session,
    report: &mut Report,
    accept: &Acceptance,
    out: &mut Folder,
    build: Consent,
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
    let served: Vec<(String, Vec<String>)> =
        built.iter().map(|(index, prints)| (index.name.clone(), prints.clone())).collect();
    report.indexes = built.into_iter().map(|(index, _)| index).collect();
    let (phase, slow, findings) = queries::run(session, accept).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    report.findings = findings;
    let (phase, slow) = verify::run(session).await?;
    report.phases.push(phase);
    report.slow_queries.extend(slow);
    name_findings(report, &served);
    Ok(())
}

async fn start(options: Options, folder: &std::path::Path, progress: &Progress) -> Result<Session, String> {
    let failed = |error: std::io::Error| format!("no port can be had: {error}");
    let config: tokio_postgres::Config =
        options.url.parse().map_err(|error| format!("this is not a database URL: {error}"))?;
    let mut pool = config.get_dbname().or(config.get_user()).unwrap_or("postgres").to_owned();
    // Under these names the pooler's console answers.
    if matches!(pool.as_str(), "poolwright" | "pgbouncer") {
        pool.push_str("_database");
    }
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
    let pooler = Pooler::start(folder, settings, options.keep).await.map_err(|error| error.to_string())?;
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
        rounds: 0,
        started,
        evidence: Evidence::default(),
        progress: progress.clone(),
        phase: PhaseName::Baseline,
        windows: Vec::new(),
        first_scrape: None,
    })
}

/// Lets each slow statement name the findings that speak of it and the indexes that serve it.
fn name_findings(report: &mut Report, served: &[(String, Vec<String>)]) {
    let Report { slow_queries, findings, .. } = report;
    for SlowQuery { fingerprint, findings: named, .. } in slow_queries {
        named.extend(findings.iter().filter(|f| f.fingerprint == *fingerprint).map(|f| f.id.clone()));
        named
            .extend(served.iter().filter(|index| index.1.contains(fingerprint)).map(|index| index.0.clone()));
    }
}
