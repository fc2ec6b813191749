//! A read-only transaction around everything that only looks.

use tokio_postgres::Client;

use crate::AdvisorError;

/// Longest that one statement of ours may run, in ms.
pub(crate) const STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// Longest that one statement of ours waits for a lock, in ms.
pub(crate) const LOCK_TIMEOUT_MS: u32 = 500;

/// Begins a read-only transaction with time-outs and a fixed search_path; answers the schemas that unqualified
/// names of the application are found in, in order.
pub(crate) async fn begin(client: &Client) -> Result<Vec<String>, AdvisorError> {
    let row = client.query_one("SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]", &[]).await?;
    let schemas: Vec<String> = row.get(0);
    client
        .batch_execute(&format!(
            "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY; \
             SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; \
             SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; \
             SET LOCAL search_path = pg_catalog"
        ))
        .await?;
    Ok(schemas)
}

/// Ends the transaction; nothing of it stays.
pub(crate) async fn end(client: &Client) -> Result<(), AdvisorError> {
    Ok(client.batch_execute("ROLLBACK").await?)
}

/// Sets the schemas the application's own statements are planned in.
pub(crate) async fn application_path(client: &Client, schemas: &[String]) -> Result<(), AdvisorError> {
    let mut path = vec!["pg_catalog".to_owned()];
    path.extend(schemas.iter().map(|schema| format!("\"{}\"", schema.replace('"', "\"\""))));
    Ok(client.batch_execute(&format!("SET LOCAL search_path = {}", path.join(", "))).await?)
}
