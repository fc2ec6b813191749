//! `poolwright demo`: a throwaway PostgreSQL with the example in it. So far it plans on the example's declared
//! statements; the load and the measured phases are not part of it yet, so it never claims that a target holds.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::postgres::{StartOptions, Throwaway};

use crate::optimize::{example, plan};
use crate::output;
use crate::report;
use crate::report::model::Report;

/// PostgreSQL could not be started or filled, or the report not written.
const FAILED: u8 = 2;
/// Ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Scale of a quick run.
const QUICK_SCALE: f64 = 0.05;

/// Arguments of `poolwright demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Small data; marked as not a proof.
    #[arg(long)]
    quick: bool,
    /// Scale of the example's data [default: 1, or 0.05 with --quick].
    #[arg(long, value_parser = scale)]
    scale: Option<f64>,
    /// Folder of report.html and report.json.
    #[arg(long, default_value = "poolwright-demo")]
    out: PathBuf,
    /// Answer with report.json on stdout.
    #[arg(long)]
    json: bool,
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

/// Runs the command: exit code 2 when something failed, 130 after Ctrl-C, else 1, for nothing was proven.
pub async fn run(args: Args) -> ExitCode {
    let result = tokio::select! {
        result = show(&args) => result,
        // What was being started is dropped with its future, and takes its processes and folder with it.
        _interrupt = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    match result {
        Ok(report) => {
            super::optimize::show(&report, &args.out, args.json);
            output::note("The measured phases are not built yet: no target was checked.");
            ExitCode::FAILURE
        }
        Err(error) => {
            output::error(&error);
            ExitCode::from(FAILED)
        }
    }
}

async fn show(args: &Args) -> Result<Report, String> {
    let scale = args.scale.unwrap_or(if args.quick { QUICK_SCALE } else { 1.0 });
    let options = StartOptions { bin: args.postgres_bin.clone(), ..StartOptions::default() };
    output::note("starting a throwaway PostgreSQL");
    let postgres = tokio::task::spawn_blocking(move || Throwaway::start(&options))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let client = plan::connect(&postgres.url("postgres")).await?;
    output::note(&format!("loading the example at scale {scale}"));
    client.batch_execute(example::schema()).await.map_err(|error| plan::told(&error))?;
    // One at a time: VACUUM may not run in the transaction that several statements at once make.
    for statement in example::data(scale).split_inclusive(";\n") {
        client.batch_execute(statement).await.map_err(|error| plan::told(&error))?;
    }
    client.batch_execute("ANALYZE").await.map_err(|error| plan::told(&error))?;
    // The database is ours, so the extension may be made; without it the planner's plain EXPLAIN serves.
    if let Err(error) = advisor::indexes::enable_hypopg(&client).await {
        output::note(&format!("HypoPG is not there ({error}); costs come from plain EXPLAIN"));
    }
    let source = "declared by the example's workload, not observed under load; calls are its weights";
    let (mut report, evidence) = plan::plan(&client, &example::declared()?, source).await?;
    report.environment.scale = Some(scale);
    report.environment.quick = args.quick;
    drop(client);
    drop(postgres);
    report::write(&args.out, &report, &evidence).map_err(|error| error.to_string())?;
    Ok(report)
}
