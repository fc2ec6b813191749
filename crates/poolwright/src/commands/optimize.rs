//! `poolwright optimize`: looks and plans; with `--load` it measures the five phases, with `--apply` it builds indexes.
//! Each is a consent of its own, and shows beforehand what it is going to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lab::workload::Workload;

use super::interrupt::Interrupt;
use super::measured::{self, Common, FAILED};
use crate::optimize::consent::{self, Request};
use crate::optimize::phases::indexes::Consent;
use crate::optimize::progress::Progress;
use crate::optimize::{build, five, plan};
use crate::output;
use crate::report::Folder;
use crate::report::evidence::Evidence;
use crate::report::model::Report;

/// Arguments of `poolwright optimize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database: postgres://user:password@host:port/database.
    #[arg(env = "DATABASE_URL", hide_env_values = true)]
    url: String,
    /// Measure under the load that this workload file describes. Its statements are run, those that write too.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Build the indexes that are advised, CONCURRENTLY; those that do not help are dropped again.
    #[arg(long)]
    apply: bool,
    /// Show what is going to be done and do it, without asking.
    #[arg(long)]
    yes: bool,
    /// Folder of report.html, report.json and the migrations.
    #[arg(long, default_value = "poolwright-report")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
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
        result = optimize(&args, &progress) => result,
        // What was started is dropped with its future, and takes its processes and folders with it.
        code = interrupt.come() => {
            progress.done();
            return ExitCode::from(code);
        }
    };
    progress.done();
    match result {
        Ok((report, evidence)) => measured::show(&report, &evidence.remarks, &args.out, args.common.json),
        Err(error) => {
            output::error(&error);
            ExitCode::from(FAILED)
        }
    }
}

async fn optimize(args: &Args, progress: &Progress) -> Result<(Report, Evidence), String> {
    let workload = args.load.as_deref().map(read).transpose()?;
    let mut out = Folder::make(&args.out).map_err(|error| error.to_string())?;
    let (report, evidence) = match workload {
        Some(workload) => measure(args, workload, &mut out, progress).await?,
        None => look(args, &mut out, progress).await?,
    };
    out.write(&report, &evidence).map_err(|error| error.to_string())?;
    Ok((report, evidence))
}

/// Reads a workload file; the error says where it is wrong.
fn read(path: &Path) -> Result<Workload, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Workload::parse(&text).map_err(|error| match error.position(&text) {
        Some((line, column)) => format!("{}:{line}:{column}: {error}", path.display()),
        None => format!("{}: {error}", path.display()),
    })
}

/// The five phases on somebody's database.
async fn measure(
    args: &Args,
    workload: Workload,
    out: &mut Folder,
    progress: &Progress,
) -> Result<(Report, Evidence), String> {
    let pace = args.common.pace();
    let client = plan::connect(&args.url).await?;
    let (statements, bytes) = consent::load(&client, &workload, &pace, args.common.target_qps).await?;
    drop(client);
    let request = Request::new(&args.url, "run this load".to_owned(), statements, bytes)?;
    if !request.agreed(args.yes, progress).await? {
        return Err("nothing was done: the load was not agreed to".to_owned());
    }
    let options = five::Options {
        url: args.url.clone(),
        workload,
        pace,
        targets: args.common.targets(),
        seed: args.common.seed,
        scale: None,
        build: if args.apply { Consent::Ask { yes: args.yes } } else { Consent::No },
        accept: args.common.acceptance(),
        keep: false,
    };
    let outcome = five::run(options, out, progress).await?;
    Ok((outcome.report, outcome.evidence))
}

/// What can be said without a load; the indexes are built where that was asked for and agreed to.
async fn look(args: &Args, out: &mut Folder, progress: &Progress) -> Result<(Report, Evidence), String> {
    let client = plan::connect(&args.url).await?;
    progress.step("plan", "reading the statements and asking the planner");
    let (known, source) = match plan::statements(&client).await {
        Ok(known) => (known, "as counted by pg_stat_statements".to_owned()),
        Err(missing) => (Vec::new(), missing),
    };
    let mut planned = plan::plan(&client, &known, &source, &args.common.targets()).await?;
    out.migrations(&planned.advice).map_err(|error| error.to_string())?;
    if args.apply && !planned.advice.is_empty() {
        let consent = Consent::Ask { yes: args.yes };
        if consent.given(&args.url, &planned.advice, progress).await? {
            out.stays();
            apply(&args.url, &client, &mut planned, out, progress).await?;
        } else {
            planned.evidence.remarks.push("The indexes were not agreed to: none was built.".to_owned());
        }
    }
    Ok((planned.report, planned.evidence))
}

/// Builds the indexes one at a time. Without a load the planner is the judge of whether one helps.
async fn apply(
    url: &str,
    client: &tokio_postgres::Client,
    planned: &mut plan::Planned,
    out: &mut Folder,
    progress: &Progress,
) -> Result<(), String> {
    let remarks = &mut planned.evidence.remarks;
    for (advice, index) in planned.advice.iter().zip(&mut planned.report.indexes) {
        if let Err(why) = build::build(url, client, advice, index, &planned.prints, progress).await {
            remarks.push(format!("{} was not built: {why}.", advice.name));
            out.withdraw(advice);
            continue;
        }
        index.kept = build::cheaper(index);
        if !index.kept {
            advisor::apply::drop(url, advice).await.map_err(|error| error.to_string())?;
            out.withdraw(advice);
            remarks.push(format!("{} did not help and was dropped again.", advice.name));
        }
    }
    Ok(())
}
