//! Phase 3: indexes from the observed statements, built one at a time, measured, and dropped when they do not help.

use advisor::indexes::{IndexAdvice, Planner};

use super::{phase, rates};
use crate::optimize::plan;
use crate::optimize::probe::Probe;
use crate::optimize::session::Session;
use crate::report::model::{Index, Phase, PhaseName, SlowQuery};

/// An index stays when its statements take at most this share of the time they took before.
const HELPED_SHARE_MAX: f64 = 0.9;
/// Statements of an index that are timed.
const TIMED: usize = 3;

/// Advises, builds where that is allowed, and measures.
///
/// # Errors
/// A sentence for the user.
pub async fn run(
    session: &mut Session,
    out: &std::path::Path,
    build: bool,
) -> Result<(Phase, Vec<SlowQuery>, Vec<Index>), String> {
    session.begin(PhaseName::Indexes).await?;
    session.settle().await?;
    session.progress.step("indexes", "asking the planner");
    let prints = session.snapshot(false).await?.fingerprints;
    let client = plan::connect(&session.direct).await?;
    let advice = advisor::indexes::advise(&client, &prints).await.map_err(|error| error.to_string())?;
    if advice.iter().any(|advice| advice.method == "explain") {
        session.remark(
            "HypoPG is not installed on this PostgreSQL: the indexes were chosen from plain EXPLAIN, their gain \
             was not priced beforehand."
                .to_owned(),
        );
    }
    advisor::apply::write_migrations(&out.join("migrations"), &advice)
        .map_err(|error| format!("cannot write the migrations: {error}"))?;
    let mut indexes = Vec::new();
    for advice in &advice {
        let mut index = plan::index(advice);
        if build {
            one(session, &client, advice, &mut index, &prints).await?;
        }
        indexes.push(index);
    }
    drop(client);
    let rates = rates(session).await?;
    let (phase, slow) = phase(session, PhaseName::Indexes, &rates);
    Ok((phase, slow, indexes))
}

/// Builds one index, times its statements before and after, and drops it again when it did not help.
async fn one(
    session: &mut Session,
    client: &tokio_postgres::Client,
    advice: &IndexAdvice,
    index: &mut Index,
    prints: &[stats::FingerprintSnapshot],
) -> Result<(), String> {
    let probes: Vec<Probe> =
        advice.fingerprints.iter().filter_map(|id| Probe::find(&session.workload, id)).take(TIMED).collect();
    session.progress.step("indexes", &format!("{}: timing its statements", advice.name));
    let before = time(session, &probes).await?;
    let progress = session.progress.clone();
    let built = advisor::apply::build(&session.direct, advice, |text| progress.step("indexes", text)).await;
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            session.remark(format!("{} was not built: {error}.", advice.name));
            return Ok(());
        }
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let build_ms = built.build_ms.round() as u64;
    (index.size_bytes, index.build_ms) = (Some(built.size_bytes), Some(build_ms));
    index.valid = built.valid;
    if !built.valid {
        return Ok(());
    }
    session.event("index", &advice.name).await?;
    replan(client, advice, index, prints).await?;
    session.progress.step("indexes", &format!("{}: timing its statements again", advice.name));
    let after = time(session, &probes).await?;
    let helped = match (before, after) {
        (Some(before), Some(after)) => {
            index.reason.push_str(&format!(
                " Measured on one quiet connection: {before:.2} ms before, {after:.2} ms after (medians of {} \
                 statement(s), added up).",
                probes.len()
            ));
            after <= before * HELPED_SHARE_MAX
        }
        _ => index
            .cost_after
            .zip(index.cost_before)
            .is_some_and(|(after, before)| after <= before * HELPED_SHARE_MAX),
    };
    index.kept = helped;
    if !helped {
        advisor::apply::drop(&session.direct, advice).await.map_err(|error| error.to_string())?;
        session.remark(format!("{} did not help and was dropped again.", advice.name));
    }
    Ok(())
}

/// Medians of the statements added up; `None` where none can be timed.
async fn time(session: &Session, probes: &[Probe]) -> Result<Option<f64>, String> {
    let mut sum = None;
    for probe in probes {
        let ms = probe.median_ms(&session.direct, &session.workload, session.seed).await?;
        sum = Some(sum.unwrap_or(0.0) + ms);
    }
    Ok(sum)
}

/// The plan of the first statement as PostgreSQL makes it now that the index is there.
async fn replan(
    client: &tokio_postgres::Client,
    advice: &IndexAdvice,
    index: &mut Index,
    prints: &[stats::FingerprintSnapshot],
) -> Result<(), String> {
    let Some(print) = advice.fingerprints.first().and_then(|id| prints.iter().find(|print| print.id == *id))
    else {
        return Ok(());
    };
    client.batch_execute("BEGIN READ ONLY").await.map_err(|error| plan::told(&error))?;
    let planned = async { Planner::new(client).await?.plan(&print.query).await }.await;
    client.batch_execute("ROLLBACK").await.map_err(|error| plan::told(&error))?;
    if let Some(planned) = planned.map_err(|error| error.to_string())? {
        index.plan_after = planned.text;
        index.cost_after = Some(planned.cost);
    }
    Ok(())
}
