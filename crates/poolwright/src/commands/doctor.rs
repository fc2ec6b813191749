//! `poolwright doctor`: what is wrong with a database, worst first. Reads only.

use std::process::ExitCode;
use std::time::Duration;

use advisor::doctor::{Examination, examine};
use tokio_postgres::NoTls;

use crate::{config, output};

/// Something is wrong with the database.
const WRONG: u8 = 1;
/// The database could not be looked at.
const BLIND: u8 = 2;
/// Longest wait for the connection, and for the whole examination, in seconds.
const CONNECT_TIMEOUT_S: u64 = 10;
const EXAMINE_TIMEOUT_S: u64 = 60;

/// Arguments of `poolwright doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database: postgres://user:password@host:port/database.
    url: String,
    /// Answer with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit code 0 healthy, 1 something is wrong, 2 could not look.
pub async fn run(args: Args) -> ExitCode {
    match look(&args.url).await {
        Ok(found) => {
            if args.json {
                print_json(&found);
            } else {
                print_text(&found);
            }
            if found.healthy() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
        }
        Err(why) => {
            output::error(&why);
            ExitCode::from(BLIND)
        }
    }
}

async fn look(url: &str) -> Result<Examination, String> {
    let mut config = config::connection(url)?;
    config.application_name("poolwright doctor").connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_S));
    let (client, connection) =
        tokio::time::timeout(Duration::from_secs(CONNECT_TIMEOUT_S), config.connect(NoTls))
            .await
            .map_err(|_elapsed| format!("the database did not answer within {CONNECT_TIMEOUT_S} s"))?
            .map_err(|error| {
                format!("cannot connect to {}: {}", config::destination(&config), told(&error))
            })?;
    let connection = tokio::spawn(connection);
    let found = tokio::time::timeout(Duration::from_secs(EXAMINE_TIMEOUT_S), examine(&client))
        .await
        .map_err(|_elapsed| format!("the examination took more than {EXAMINE_TIMEOUT_S} s"))?
        .map_err(|error| error.to_string());
    connection.abort();
    found
}

/// The server's own words where there are any, else the whole chain of causes.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(fault) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", fault.message(), fault.code().code());
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words
}

fn print_json(found: &Examination) {
    let mut answer = serde_json::json!({ "schema_version": 1, "healthy": found.healthy() });
    if let (Some(answer), Ok(serde_json::Value::Object(parts))) =
        (answer.as_object_mut(), serde_json::to_value(found))
    {
        answer.extend(parts);
    }
    output::line(&answer.to_string());
}

fn print_text(found: &Examination) {
    match found.problems.len() {
        0 => output::line("Healthy: nothing found."),
        count if found.healthy() => output::line(&format!("Healthy, with {count} notice(s).")),
        count => output::line(&format!("{count} problem(s), worst first.")),
    }
    for (number, problem) in (1..).zip(&found.problems) {
        output::line(&format!("\n{number:>3}. [{}] {}", problem.severity.as_str(), problem.title));
        output::line(&format!("     {}", problem.evidence));
        output::line(&format!("     Remedy: {}", problem.remedy));
    }
    output::line("\nConnections");
    if found.connections.is_empty() {
        output::line("  none but this one");
    }
    for group in &found.connections {
        let application = if group.application.is_empty() { "-" } else { &group.application };
        output::line(&format!("  {:>5}  {:<28} {:<20} {application}", group.count, group.state, group.user));
    }
    if !found.slowest.is_empty() {
        output::line("\nSlowest statements by total time");
    }
    for slow in &found.slowest {
        let query: String =
            slow.query.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(100).collect();
        output::line(&format!("  {:>10.1} ms mean {:>9} calls  {query}", slow.mean_ms, slow.calls));
    }
    output::line("\nSettings");
    for (name, value) in &found.facts {
        output::line(&format!("  {name:<38} {value}"));
    }
    for part in &found.skipped {
        output::line(&format!("Not looked at: {part}"));
    }
}
