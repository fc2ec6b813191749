//! Times one statement of the workload on a quiet connection, with parameters as the workload draws them.

use std::time::Instant;

use lab::load::{Connection, Draws, Failure, Target};
use lab::workload::Workload;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Executions of which the median is taken.
const TIMES: u64 = 11;

/// A SELECT of the workload, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    operation: usize,
    statement: usize,
}

/// Whether running the statement changes nothing.
fn reads(sql: &str) -> bool {
    fingerprint::scan(sql.as_bytes()).command.as_str().eq_ignore_ascii_case("select")
}

impl Probe {
    /// The statement with this fingerprint; `None` when the workload has none, or when it, or one before it in its
    /// operation, would write.
    pub fn find(workload: &Workload, fingerprint: &str) -> Option<Self> {
        workload.operations.iter().enumerate().find_map(|(operation, found)| {
            let statement = found.statements.iter().position(|statement| {
                fingerprint::hex(fingerprint::scan(statement.sql.as_bytes()).id) == fingerprint
            })?;
            let harmless = found.statements[..=statement].iter().all(|statement| reads(&statement.sql));
            harmless.then_some(Self { operation, statement })
        })
    }

    /// Median time of one execution in milliseconds. The same seed draws the same parameters.
    ///
    /// # Errors
    /// PostgreSQL does not answer, or with an error.
    pub async fn median_ms(self, url: &str, workload: &Workload, seed: u64) -> Result<f64, String> {
        let target = Target::parse(url)?;
        let mut connection = Connection::open(&target).await.map_err(|failure| said(&failure))?;
        let mut times_ms = Vec::new();
        for time in 0..TIMES {
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(time));
            if let Some(ms) = self.once(&mut connection, workload, &mut random).await? {
                times_ms.push(ms);
            }
        }
        times_ms.sort_by(f64::total_cmp);
        Ok(times_ms.get(times_ms.len() / 2).copied().unwrap_or(0.0))
    }

    /// Runs the operation up to the statement and times that.
    async fn once(
        self,
        connection: &mut Connection,
        workload: &Workload,
        random: &mut StdRng,
    ) -> Result<Option<f64>, String> {
        let statements = &workload.operations[self.operation].statements[..=self.statement];
        let mut rows: Vec<Option<String>> = Vec::new();
        for (place, statement) in statements.iter().enumerate() {
            if statement.for_each_row && rows.is_empty() {
                return Ok(None);
            }
            let wanted = statements
                .get(place + 1)
                .map(|next| next.params.iter().find_map(|param| param.column).unwrap_or(0));
            let params = Draws::new(workload, statement).next(random, &rows, 0);
            let began = Instant::now();
            let answer =
                connection.run(&statement.sql, &params, wanted).await.map_err(|failure| said(&failure))?;
            if place == self.statement {
                return Ok(Some(began.elapsed().as_secs_f64() * 1000.0));
            }
            rows = answer.column;
        }
        Ok(None)
    }
}

fn said(failure: &Failure) -> String {
    match failure {
        Failure::Server(state, message) => format!("{message} (SQLSTATE {state})"),
        Failure::Connection(error) => error.to_string(),
    }
}
