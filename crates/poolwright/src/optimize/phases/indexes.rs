//! Phase 3: indexes from the observed statements, built one at a time, measured, and dropped when they do not help.

use advisor::indexes::IndexAdvice;
use tokio_postgres::Client;

use super::{phase, rates};
use crate::optimize::consent::Request;
use crate::optimize::probe::Probe;
use crate::optimize::progress::Progress;
use crate::optimize::session::Session;
use crate::optimize::{build, plan};
use crate::report::Folder;
use crate::report::model::{Index, Phase, PhaseName, SlowQuery};

/// Statements of an index that are timed.
const TIMED: usize = 3;

/// Whether indexes may be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// The database is ours.
    Ours,
    /// The user is asked, unless `yes` was said beforehand.
    Ask {
        /// It was.
        yes: bool,
    },
    /// Nobody asked for it.
    No,
}

impl Consent {
    /// Whether these may be built; asks where the database is somebody's.
    ///
    /// # Errors
    /// There is no terminal to ask on.
    pub async fn given(self, url: &str, advice: &[IndexAdvice], progress: &Progress) -> Result<bool, String> {
        let yes = match self {
            Self::Ours => return Ok(true),
            Self::No => return Ok(false),
            Self::Ask { .. } if advice.is_empty() => return Ok(false),
            Self::Ask { yes } => yes,
        };
        let statements = advice.iter().map(|advice| advice.sql_up.clone()).collect();
        let bytes = advice.iter().map(|advice| advice.size_bytes).sum();
        let what = format!("build {} index(es)", advice.len());
        Request::new(url, what, statements, bytes)?.agreed(yes, progress).await
    }
}

/// An index, and the fingerprints of the statements that it serves.
pub type Served = (Index, Vec<String>);

/// Advises, builds where that is allowed, and measures.
///
/// # Errors
/// A sentence for the user.
pub async fn run(
    session: &mut Session,
    out: &mut Folder,
    consent: Consent,
) -> Result<(Phase, Vec<SlowQuery>, Vec<Served>), String> {
    session.begin(PhaseName::Indexes).await?;
    session.settle().await?;
    session.progress.step("indexes", "asking the planner");
    let prints = session.snapshot(false).await?.fingerprints;
    let client = plan::connect(&session.direct).await?;
    let advisor::indexes::Advice { indexes: advice, remarks } =
        advisor::indexes::consider(&client, &prints).await.map_err(|error| error.to_string())?;
    remarks.into_iter().for_each(|remark| session.remark(remark));
    if advice.iter().any(|advice| advice.method == "explain") {
        session.remark(plan::NO_HYPOPG.to_owned());
    }
    out.migrations(&advice).map_err(|error| error.to_string())?;
    let allowed = consent.given(&session.direct, &advice, &session.progress).await?;
    if allowed && consent != Consent::Ours {
        out.stays();
    }
    let mut indexes = Vec::new();
    for advice in &advice {
        let mut index = plan::index(advice);
        if allowed {
            one(session, &client, advice, &mut index, &prints).await?;
            if !index.kept {
                out.withdraw(advice);
            }
        }
        indexes.push((index, advice.fingerprints.clone()));
    }
    drop(client);
    let rates = rates(session).await?;
    let (phase, slow) = phase(session, PhaseName::Indexes, &rates);
    Ok((phase, slow, indexes))
}

/// Builds one index, times its statements before and after, and drops it again when it did not help.
async fn one(
    session: &mut Session,
    client: &Client,
    advice: &IndexAdvice,
    index: &mut Index,
    prints: &[stats::FingerprintSnapshot],
) -> Result<(), String> {
    let probes: Vec<Probe> =
        advice.fingerprints.iter().filter_map(|id| Probe::find(&session.workload, id)).take(TIMED).collect();
    session.progress.step("indexes", &format!("{}: timing its statements", advice.name));
    let before = time(session, &probes).await?;
    let progress = session.progress.clone();
    if let Err(why) = build::build(&session.direct, client, advice, index, prints, &progress).await {
        session.remark(format!("{} was not built: {why}.", advice.name));
        return Ok(());
    }
    session.event("index", &advice.name).await?;
    session.progress.step("indexes", &format!("{}: timing its statements again", advice.name));
    let mut after = time(session, &probes).await?;
    if after.zip(before).is_some_and(|(after, before)| after > before * build::HELPED_SHARE_MAX) {
        // Something else may have been in the way: an index is not dropped on one look.
        let again = time(session, &probes).await?;
        after = after.zip(again).map(|(after, again)| after.min(again));
    }
    index.kept = match (before, after) {
        (Some(before), Some(after)) => {
            index.reason.push_str(&format!(
                " Measured on one quiet connection: {before:.2} ms before, {after:.2} ms after (medians of {} \
                 statement(s), added up).",
                probes.len()
            ));
            after <= before * build::HELPED_SHARE_MAX
        }
        _ => build::cheaper(index),
    };
    if !index.kept {
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
