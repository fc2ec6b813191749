//! Memory of the idle connections: Pss_Anon + Pss_File of each backend, shared memory apart.

use tokio_postgres::Client;

use super::plan;

/// The backends of this database that are not our own connections, with their process ids.
const BACKENDS: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' \
    AND datname = current_database() AND pid <> pg_backend_pid() \
    AND application_name NOT IN ('poolwright optimize')";

/// Bytes of `count` idle backends, and the bytes of shared memory apart; a sentence where they cannot be had:
/// PostgreSQL runs elsewhere, its processes may not be read, or others are connected too.
///
/// # Errors
/// That sentence.
pub async fn backends(client: &Client, count: u32) -> Result<lab::memory::Memory, String> {
    let rows = client.query(BACKENDS, &[]).await.map_err(|error| plan::told(&error))?;
    let pids: Vec<u32> = rows.iter().filter_map(|row| u32::try_from(row.get::<_, i32>(0)).ok()).collect();
    if pids.len() != count as usize {
        return Err(format!("{} backends are connected, {count} of them Poolwright's", pids.len()));
    }
    let memory = lab::memory::processes(&pids);
    if memory.processes != count {
        return Err("the memory of PostgreSQL's processes cannot be read from here".to_owned());
    }
    Ok(memory)
}
