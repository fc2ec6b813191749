//! Asking before anything is done to a database that is not ours.

use std::io::{BufRead as _, IsTerminal as _};

use lab::workload::Workload;
use tokio_postgres::Client;

use super::pace::Pace;
use super::plan;
use super::progress::Progress;
use crate::output;

/// Bytes of a row of a table that PostgreSQL knows no size of.
const ROW_BYTES: f64 = 100.0;

/// What is going to be done, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// What for: `run the load`, `build 2 indexes`.
    pub what: String,
    /// `host:port`.
    pub host: String,
    /// The database.
    pub database: String,
    /// The statements, each with how often where that is known.
    pub statements: Vec<String>,
    /// Bytes that it is going to write, estimated.
    pub bytes: u64,
}

impl Request {
    /// For the database behind `url`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn new(url: &str, what: String, statements: Vec<String>, bytes: u64) -> Result<Self, String> {
        let config: tokio_postgres::Config =
            url.parse().map_err(|error| format!("this is not a database URL: {error}"))?;
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(name)) => name.clone(),
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres").to_owned();
        Ok(Self { what, host: format!("{host}:{port}"), database, statements, bytes })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("Poolwright is going to {}:", self.what)];
        lines.push(format!("  host       {}", self.host));
        lines.push(format!("  database   {}", self.database));
        lines.extend(self.statements.iter().map(|statement| format!("  statement  {statement}")));
        let about = if self.bytes == 0 { "" } else { "about " };
        lines.push(format!("  writes     {about}{}", size(self.bytes)));
        lines
    }

    /// Shows it on stderr and asks, unless `yes` was said beforehand.
    ///
    /// # Errors
    /// There is no terminal to ask on.
    pub async fn agreed(&self, yes: bool, progress: &Progress) -> Result<bool, String> {
        let ask = !yes;
        if ask && !std::io::stdin().is_terminal() {
            return Err(format!("to {}, say --yes, or run on a terminal to be asked", self.what));
        }
        progress.aside(|| {
            self.lines().iter().for_each(|line| output::note(line));
            if ask {
                output::note("Go on? [y/N]");
            }
        });
        if !ask {
            return Ok(true);
        }
        // A thread of its own: nobody waits for it when the answer is Ctrl-C.
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            let _gone = tell.send(read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes"));
        });
        Ok(told.await.unwrap_or(false))
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let bytes_f = bytes as f64;
    match bytes {
        0 => "nothing".to_owned(),
        1..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{:.0} kB", bytes_f / 1e3),
        _ => format!("{:.0} MB", bytes_f / 1e6),
    }
}

/// What the load does: each of its statements with how often, and the bytes of the rows that it writes.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn load(
    client: &Client,
    workload: &Workload,
    pace: &Pace,
    target_ops: f64,
) -> Result<(Vec<String>, u64), String> {
    let operations = operations(workload, pace, target_ops);
    let weights: f64 = workload.operations.iter().map(|operation| operation.weight).sum();
    let (mut statements, mut bytes) = (Vec::new(), 0.0);
    for operation in &workload.operations {
        for statement in &operation.statements {
            let times = operations * operation.weight / weights * f64::from(statement.repeat);
            statements.push(format!("{times:.0} x {}", statement.sql));
            let shape = fingerprint::scan(statement.sql.as_bytes());
            if !shape.command.as_str().eq_ignore_ascii_case("select") {
                let tables = fingerprint::tables(statement.sql.as_bytes());
                bytes += times * row_bytes(client, tables.first().map(String::as_str)).await?;
            }
        }
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = bytes as u64;
    Ok((statements, bytes))
}

/// Operations over a whole run; the search for the sustained rate is taken at twice the target's.
fn operations(workload: &Workload, pace: &Pace, target_ops: f64) -> f64 {
    let phases = 5.0 * (workload.rate_ops * pace.own.as_secs_f64() + target_ops * pace.target.as_secs_f64());
    let tries = f64::from(pace.tries_baseline + pace.tries_verify);
    phases + tries * 2.0 * target_ops * pace.search.as_secs_f64()
}

async fn row_bytes(client: &Client, table: Option<&str>) -> Result<f64, String> {
    const WIDTH: &str = "SELECT relpages::float8 * current_setting('block_size')::float8 / reltuples::float8 \
        FROM pg_class WHERE oid = to_regclass($1) AND reltuples > 0";
    let Some(table) = table else { return Ok(ROW_BYTES) };
    let row = client.query_opt(WIDTH, &[&table]).await.map_err(|error| plan::told(&error))?;
    Ok(row.map_or(ROW_BYTES, |row| row.get::<_, f64>(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shows_host_database_statements_and_bytes_but_no_password() {
        let url = "postgres://me:secret@db.example:6000/app";
        let request =
            Request::new(url, "build 1 index".into(), vec!["CREATE INDEX i".into()], 2_000_000).unwrap();
        let text = request.lines().join("\n");
        for part in ["db.example:6000", "app", "CREATE INDEX i", "2000 kB"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn without_a_terminal_nothing_is_agreed() {
        // Tests have no terminal for stdin under the test runner; with one the question would be asked.
        if !std::io::stdin().is_terminal() {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let request = Request::default();
            assert!(runtime.block_on(request.agreed(false, &Progress::new())).is_err());
            assert!(runtime.block_on(request.agreed(true, &Progress::new())).unwrap());
        }
    }
}
