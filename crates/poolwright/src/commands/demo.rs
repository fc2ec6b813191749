//! `poolwright demo`: the five phases on a throwaway PostgreSQL with the example in it.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::postgres::{StartOptions, Throwaway};

use super::interrupt::Interrupt;
use super::measured::{self, Common, FAILED};
use crate::optimize::phases::indexes::Consent;
use crate::optimize::progress::Progress;
use crate::optimize::{example, five, plan};
use crate::output;
use crate::report::Folder;

/// Scale of a quick run.
const QUICK_SCALE: f64 = 0.05;

/// Arguments of `poolwright demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Scale of the example's data [default: 1, or 0.05 with --quick].
    #[arg(long, value_parser = scale)]
    scale: Option<f64>,
    /// Folder of report.html, report.json and the migrations.
    #[arg(long, default_value = "poolwright-demo")]
    out: PathBuf,
    /// Leave PostgreSQL, Poolwright and Prometheus running, and say where.
    #[arg(long)]
    keep: bool,
    /// Folder of PostgreSQL's programs.
    #[arg(long)]
    postgres_bin: Option<PathBuf>,
}

/// A scale is a number over 0, at most 100.
fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_not_a_number| "a scale is a number".to_owned())?;
    if scale > 0.0 && scale <= 100.0 {
        Ok(scale)
    } else {
        Err("a scale is over 0 and at most 100".to_owned())
    }
}

/// Runs the command: exit code 0 only if all targets hold, 2 when something failed, 130 after Ctrl-C, else 1.
pub async fn run(args: Args) -> ExitCode {
    let mut interrupt = match Interrupt::new() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(FAILED);
        }
    };
    let progress = Progress::new();
    let result = tokio::select! {
        result = prove(&args, &progress) => result,
        // What was started is dropped with its future, and takes its processes and folders with it.
        code = interrupt.come() => {
            progress.done();
            return ExitCode::from(code);
        }
    };
    progress.done();
    match result {
        Ok(run) => {
            let Run { outcome, postgres } = run;
            let five::Outcome { report, evidence, beside } = outcome;
            let code = measured::show(&report, &evidence.remarks, &args.out, args.common.json);
            if args.keep {
                keep(beside, postgres);
            }
            code
        }
        Err(error) => {
            output::error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// What came of it, and the PostgreSQL it was measured on.
struct Run {
    outcome: five::Outcome,
    postgres: Throwaway,
}

async fn prove(args: &Args, progress: &Progress) -> Result<Run, String> {
    let scale = args.scale.unwrap_or(if args.common.quick { QUICK_SCALE } else { 1.0 });
    let workload = example::workload(scale)?;
    let mut out = Folder::make(&args.out).map_err(|error| error.to_string())?;
    let mut accept = args.common.acceptance();
    accept.different_rows.extend(example::accepted(&workload));
    let postgres = start(args, progress).await?;
    load(&postgres, scale, progress).await?;
    let options = five::Options {
        url: postgres.url("postgres"),
        workload,
        pace: args.common.pace(),
        targets: args.common.targets(),
        seed: args.common.seed,
        scale: Some(scale),
        build: Consent::Ours,
        accept,
        keep: args.keep,
    };
    let outcome = five::run(options, &mut out, progress).await?;
    out.write(&outcome.report, &outcome.evidence).map_err(|error| error.to_string())?;
    Ok(Run { outcome, postgres })
}

/// Leaves everything running and says where it is, on stderr: stdout may be the report.
fn keep(beside: five::Beside, postgres: Throwaway) {
    let five::Beside { pooler, through, prometheus, folder } = beside;
    let metrics = pooler.settings().metrics.clone();
    let (url, mut pids) = (postgres.url("postgres"), vec![postgres.pid()]);
    let mut folders = vec![postgres.keep(), folder.keep()];
    pids.push(pooler.leave_running());
    output::note("");
    output::note("Left running:");
    output::note(&format!("  PostgreSQL  {url}"));
    output::note(&format!("  Poolwright  {through}"));
    output::note(&format!("  metrics     http://{metrics}/metrics"));
    if let Some(prometheus) = prometheus {
        let address = prometheus.address().to_owned();
        output::note(&format!("  Prometheus  {address}"));
        output::note(&format!(
            "Grafana: add a data source of type Prometheus with the URL {address}, then Dashboards > New > Import \
             grafana/poolwright.json and choose that data source."
        ));
        let (pid, folder) = prometheus.leave_running();
        pids.push(pid);
        folders.push(folder);
    }
    let pids: Vec<String> = pids.iter().rev().map(u32::to_string).collect();
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    output::note(&format!(
        "End it with: kill -INT {}; sleep 3; rm -rf {}",
        pids.join(" "),
        folders.join(" ")
    ));
}

async fn start(args: &Args, progress: &Progress) -> Result<Throwaway, String> {
    progress.step("prepare", "starting a throwaway PostgreSQL");
    let options =
        StartOptions { bin: args.postgres_bin.clone(), outlives: args.keep, ..StartOptions::default() };
    tokio::task::spawn_blocking(move || Throwaway::start(&options))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

async fn load(postgres: &Throwaway, scale: f64, progress: &Progress) -> Result<(), String> {
    let client = plan::connect(&postgres.url("postgres")).await?;
    progress.step("prepare", &format!("loading the example at scale {scale}"));
    client.batch_execute(example::schema()).await.map_err(|error| plan::told(&error))?;
    lab::script::run(&client, &example::data(scale)).await.map_err(|error| plan::told(&error))?;
    // The database is ours, so the extension may be made; without it the planner's plain EXPLAIN serves.
    if let Err(error) = advisor::indexes::enable_hypopg(&client).await {
        progress.say(&format!("HypoPG is not there ({error}); costs come from plain EXPLAIN"));
    }
    Ok(())
}
