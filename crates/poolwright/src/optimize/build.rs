//! One index, built and planned anew.

use advisor::indexes::{IndexAdvice, Planner};
use stats::FingerprintSnapshot;
use tokio_postgres::Client;

use super::plan;
use super::progress::Progress;
use crate::report::model::Index;

/// An index stays when its statements take at most this share of what they took before.
pub const HELPED_SHARE_MAX: f64 = 0.9;

/// Builds the index and notes in `index` what came of it, with the plan that PostgreSQL makes now that it is there.
/// True when it was built and is valid; a sentence says why it was not.
///
/// # Errors
/// That sentence; nothing of the index is left then.
pub async fn build(
    url: &str,
    client: &Client,
    advice: &IndexAdvice,
    index: &mut Index,
    prints: &[FingerprintSnapshot],
    progress: &Progress,
) -> Result<(), String> {
    let built = advisor::apply::build(url, advice, |text| progress.step("indexes", text))
        .await
        .map_err(|error| error.to_string())?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let build_ms = built.build_ms.round() as u64;
    (index.size_bytes, index.build_ms) = (Some(built.size_bytes), Some(build_ms));
    index.valid = built.valid;
    if !built.valid {
        return Err("PostgreSQL says it is not valid; it was dropped again".to_owned());
    }
    replan(client, advice, index, prints).await
}

/// Whether the planner itself finds its statement cheaper now: for indexes whose statements cannot be timed.
pub fn cheaper(index: &Index) -> bool {
    let costs = index.cost_after.zip(index.cost_before);
    costs.is_some_and(|(after, before)| after <= before * HELPED_SHARE_MAX)
}

/// The plan of the index's first statement as it is now.
async fn replan(
    client: &Client,
    advice: &IndexAdvice,
    index: &mut Index,
    prints: &[FingerprintSnapshot],
) -> Result<(), String> {
    let Some(id) = advice.fingerprints.first() else { return Ok(()) };
    let Some(print) = prints.iter().find(|print| print.id == *id) else { return Ok(()) };
    client.batch_execute("BEGIN READ ONLY").await.map_err(|error| plan::told(&error))?;
    let planned = async { Planner::new(client).await?.plan(&print.query).await }.await;
    client.batch_execute("ROLLBACK").await.map_err(|error| plan::told(&error))?;
    if let Some(planned) = planned.map_err(|error| error.to_string())? {
        index.plan_after = planned.text;
        index.cost_after = Some(planned.cost);
    }
    Ok(())
}
