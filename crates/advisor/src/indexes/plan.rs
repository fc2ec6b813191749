//! What the planner says a statement costs, with and without indexes that do not exist.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::AdvisorError;
use crate::indexes::candidates::Candidate;

/// A plan as text, and the planner's total cost of it in its own units.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The lines of EXPLAIN.
    pub text: String,
    /// Total cost of the top node.
    pub cost: f64,
}

/// Asks for plans inside the transaction that the caller began.
pub struct Planner<'a> {
    client: &'a Client,
    generic_plan: bool,
    /// Schema of HypoPG, where the database has the extension.
    hypopg: Option<String>,
}

impl<'a> Planner<'a> {
    /// Finds out what the server can do.
    pub async fn new(client: &'a Client) -> Result<Planner<'a>, AdvisorError> {
        let row = client
            .query_one(
                "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
                 (SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e \
                  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'hypopg')",
                &[],
            )
            .await?;
        let hypopg: Option<String> = row.get(1);
        let planner = Planner {
            client,
            generic_plan: row.get::<_, i32>(0) >= 160_000,
            hypopg: hypopg.map(|schema| crate::quote(&schema)),
        };
        planner.forget().await?;
        Ok(planner)
    }

    /// Whether indexes can be supposed.
    pub fn supposes(&self) -> bool {
        self.hypopg.is_some()
    }

    /// The generic plan of a statement; `None` if the server will not plan it.
    pub async fn plan(&self, sql: &str) -> Result<Option<Plan>, AdvisorError> {
        let sql = &crate::statement::parsable(sql);
        self.client.batch_execute("SAVEPOINT poolwright_plan").await?;
        let mut prepared = false;
        let result = if self.generic_plan {
            self.client.simple_query(&format!("EXPLAIN (GENERIC_PLAN) {sql}")).await
        } else {
            self.prepared(sql, &mut prepared).await
        };
        self.client
            .batch_execute("ROLLBACK TO SAVEPOINT poolwright_plan; RELEASE SAVEPOINT poolwright_plan")
            .await?;
        if prepared {
            // A prepared statement outlives a savepoint.
            self.client.batch_execute("DEALLOCATE poolwright_plan").await?;
        }
        match result {
            Ok(messages) => Ok(Plan::read(&messages)),
            Err(error) if error.as_db_error().is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Before PostgreSQL 16: PREPARE infers the parameters' types, EXECUTE with NULLs under a forced generic plan.
    async fn prepared(
        &self,
        sql: &str,
        prepared: &mut bool,
    ) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        let parameters = highest_parameter(sql);
        self.client
            .batch_execute(&format!(
                "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE poolwright_plan AS {sql}"
            ))
            .await?;
        *prepared = true;
        let arguments = match parameters {
            0 => String::new(),
            count => format!("({})", vec!["NULL"; count].join(", ")),
        };
        self.client.simple_query(&format!("EXPLAIN EXECUTE poolwright_plan{arguments}")).await
    }

    /// Supposes an index; answers HypoPG's handle and estimated bytes. `None` without HypoPG, and where PostgreSQL
    /// would not build it (an expression that is not immutable).
    pub async fn suppose(&self, candidate: &Candidate) -> Result<Option<(u32, f64)>, AdvisorError> {
        let Some(schema) = &self.hypopg else { return Ok(None) };
        self.client.batch_execute("SAVEPOINT poolwright_suppose").await?;
        let statement = format!("CREATE INDEX ON {}", candidate.target()).replace('\'', "''");
        let found = self
            .client
            .simple_query(&format!(
                "SELECT h.indexrelid, {schema}.hypopg_relation_size(h.indexrelid) \
                 FROM {schema}.hypopg_create_index('{statement}') h"
            ))
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) if error.as_db_error().is_some() => {
                self.client
                    .batch_execute(
                        "ROLLBACK TO SAVEPOINT poolwright_suppose; RELEASE SAVEPOINT poolwright_suppose",
                    )
                    .await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.client.batch_execute("RELEASE SAVEPOINT poolwright_suppose").await?;
        Ok(found.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?.parse().ok()?, row.get(1)?.parse().ok()?)),
            _ => None,
        }))
    }

    /// Takes every supposed index away.
    pub async fn forget(&self) -> Result<(), AdvisorError> {
        if let Some(schema) = &self.hypopg {
            self.client.batch_execute(&format!("SELECT {schema}.hypopg_reset()")).await?;
        }
        Ok(())
    }
}

impl Plan {
    /// With the name that HypoPG gave its one index replaced by the real one.
    pub(super) fn named(mut self, name: &str) -> Plan {
        let mut text = String::new();
        let mut rest = self.text.as_str();
        while let Some(start) = rest.find("\"<") {
            let (before, quoted) = rest.split_at(start);
            let number = quoted[2..].trim_start_matches(|c: char| c.is_ascii_digit());
            let Some(end) = number.starts_with('>').then(|| closing(&quoted[1..])).flatten() else {
                text.push_str(&rest[..start + 2]);
                rest = &rest[start + 2..];
                continue;
            };
            text.push_str(before);
            text.push_str(&crate::quote(name));
            rest = &quoted[end + 2..];
        }
        text.push_str(rest);
        self.text = text;
        self
    }

    fn read(messages: &[SimpleQueryMessage]) -> Option<Plan> {
        let lines: Vec<&str> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let cost = lines.first()?.split("..").nth(1)?.split(' ').next()?.parse().ok()?;
        Some(Plan { text: lines.join("\n"), cost })
    }
}

/// Where a quoted name ends that began before `text`: a doubled quote is part of it.
fn closing(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('"')?;
        if !text[at + 1..].starts_with('"') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// The highest `$n` in a statement.
fn highest_parameter(sql: &str) -> usize {
    let Ok(scan) = pg_query::scan(sql) else { return 0 };
    let numbers = scan.tokens.iter().filter_map(|token| {
        let (start, end) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
        sql.get(start..end)?.strip_prefix('$')?.parse::<usize>().ok()
    });
    numbers.max().unwrap_or(0)
}
