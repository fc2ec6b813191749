//! `poolwright optimize`: so far it observes and plans; the measured phases are not part of it yet.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::optimize::plan;
use crate::output;
use crate::report;

/// The database could not be looked at, or the report not written.
const BLIND: u8 = 2;

/// Arguments of `poolwright optimize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database: postgres://user:password@host:port/database.
    #[arg(env = "DATABASE_URL", hide_env_values = true)]
    url: String,
    /// Folder of report.html and report.json.
    #[arg(long, default_value = "poolwright-report")]
    out: PathBuf,
    /// Answer with report.json on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit code 2 when it could not look, else 1, for nothing was proven.
pub async fn run(args: Args) -> ExitCode {
    match observe(&args).await {
        Ok(report) => {
            show(&report, &args.out, args.json);
            ExitCode::FAILURE
        }
        Err(error) => {
            output::error(&error);
            ExitCode::from(BLIND)
        }
    }
}

async fn observe(args: &Args) -> Result<report::model::Report, String> {
    let client = plan::connect(&args.url).await?;
    let (known, source) = match plan::statements(&client).await {
        Ok(known) => (known, "as counted by pg_stat_statements".to_owned()),
        Err(missing) => {
            output::note(&missing);
            (Vec::new(), missing)
        }
    };
    let (report, evidence) = plan::plan(&client, &known, &source).await?;
    report::write(&args.out, &report, &evidence).map_err(|error| error.to_string())?;
    Ok(report)
}

/// The verdict first, then what was found.
pub fn show(report: &report::model::Report, out: &std::path::Path, json: bool) {
    if json {
        output::line(&serde_json::to_string_pretty(report).unwrap_or_default());
        return;
    }
    output::line(&report::html::headline(report));
    for index in &report.indexes {
        let after = index.cost_after.map_or_else(|| "unknown".to_owned(), |cost| format!("{cost:.0}"));
        let before = index.cost_before.unwrap_or_default();
        output::line(&format!("index    {} (planner's cost {before:.0} -> {after})", index.name));
    }
    for finding in &report.findings {
        output::line(&format!("finding  {} {}: {}", finding.id, finding.kind, finding.evidence));
    }
    output::line(&format!("report   {}", out.join("report.html").display()));
}
