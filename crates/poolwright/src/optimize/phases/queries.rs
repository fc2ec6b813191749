//! Phase 4: what is wrong with the statements; live rewrites, and the application's own repairs.

use std::collections::BTreeSet;
use std::sync::Arc;

use advisor::queries::Finding as Found;
use lab::workload::Workload;
use tokio_postgres::Client;

use super::{phase, rates};
use crate::optimize::accept::Acceptance;
use crate::optimize::plan;
use crate::optimize::session::Session;
use crate::optimize::settings::Rewrite;
use crate::report::model::{Finding, Phase, PhaseName, SlowQuery};

/// Finds, applies what was agreed to, and measures.
///
/// # Errors
/// A sentence for the user.
pub async fn run(
    session: &mut Session,
    accept: &Acceptance,
) -> Result<(Phase, Vec<SlowQuery>, Vec<Finding>), String> {
    session.begin(PhaseName::Queries).await?;
    session.settle().await?;
    session.progress.step("queries", "reading the statements");
    let prints = session.snapshot(false).await?.fingerprints;
    let client = plan::connect(&session.direct).await?;
    let found = advisor::queries::advise(&client, &prints).await.map_err(|error| error.to_string())?;
    let mut findings: Vec<Finding> = Vec::new();
    for found in &found {
        findings.push(Finding { accepted: accept.takes(found), ..plan::finding(found.clone()) });
    }
    repair(session, &mut findings);
    rewrite(session, &client, &prints, &found, &findings).await?;
    drop(client);
    let rates = rates(session).await?;
    mark_rewrites(session, &mut findings).await?;
    let (phase, slow) = phase(session, PhaseName::Queries, &rates);
    Ok((phase, slow, findings))
}

/// Switches the operations whose faults were reported and agreed to over to their `after` statements.
fn repair(session: &mut Session, findings: &mut [Finding]) {
    let (workload, applied) = repaired(&session.workload, findings);
    session.workload = Arc::new(workload);
    for finding in findings.iter_mut().filter(|finding| applied.contains(&finding.id)) {
        session.fixed.insert(finding.kind.clone());
        finding.applied = true;
    }
}

/// The workload with only those `after` statements left whose every fault was reported on a statement of the same
/// operation and agreed to; and the ids of the findings that they mend.
fn repaired(workload: &Workload, findings: &[Finding]) -> (Workload, BTreeSet<String>) {
    let (mut workload, mut applied) = (workload.clone(), BTreeSet::new());
    for operation in &mut workload.operations {
        let own: BTreeSet<String> = operation
            .statements
            .iter()
            .map(|statement| fingerprint::hex(fingerprint::scan(statement.sql.as_bytes()).id))
            .collect();
        let mends = |kind: &str| {
            findings.iter().find(|finding| {
                finding.accepted && finding.kind == kind && own.contains(&finding.fingerprint)
            })
        };
        let mended: Option<Vec<String>> = operation
            .after
            .iter()
            .map(|statement| Some(mends(statement.fixes.as_deref()?)?.id.clone()))
            .collect();
        match mended {
            Some(ids) => applied.extend(ids),
            None => operation.after.clear(),
        }
    }
    (workload, applied)
}

/// Puts the live rewrites that were agreed to into the pooler's file, those proven by Describe of both.
async fn rewrite(
    session: &mut Session,
    client: &Client,
    prints: &[stats::FingerprintSnapshot],
    found: &[Found],
    findings: &[Finding],
) -> Result<(), String> {
    let mut settings = session.pooler.settings().clone();
    for (found, finding) in found.iter().zip(findings) {
        let print = prints.iter().find(|print| print.id == found.fingerprint);
        let (true, false, Some(print), Some(replacement)) =
            (found.live && finding.accepted, finding.applied, print, &found.sql_after)
        else {
            continue;
        };
        match advisor::queries::prove(client, &print.query, replacement).await {
            Err(why) => session.remark(format!("{} is not rewritten: {why}.", found.id)),
            Ok(()) => settings.rewrites.push(Rewrite {
                id: found.id.clone(),
                original: print.query.clone(),
                replacement: replacement.clone(),
                same_rows: found.same_rows,
            }),
        }
    }
    if settings.rewrites == session.pooler.settings().rewrites {
        return Ok(());
    }
    for rewrite in &settings.rewrites {
        session.event("rewrite", &rewrite.id).await?;
    }
    session.pooler.apply(settings).await.map_err(|error| error.to_string())
}

/// A rewrite counts as applied when the pooler says that it is active and was used.
async fn mark_rewrites(session: &mut Session, findings: &mut [Finding]) -> Result<(), String> {
    let states = session.snapshot(false).await?.rewrites;
    let asked = session.pooler.settings().rewrites.clone();
    for finding in findings.iter_mut().filter(|finding| asked.iter().any(|rewrite| rewrite.id == finding.id))
    {
        let state = states.iter().find(|state| state.id == finding.id);
        finding.applied = state.is_some_and(|state| state.state == "active" && state.applied > 0);
        if !finding.applied {
            let why = state.map_or("the pooler does not report it", |state| state.state.as_str());
            session.remark(format!("{} was agreed to and is not in force: {why}.", finding.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TWO: &str = "rate = 1
[before]
max = 2
min = 1
[[operation]]
name = \"one\"
weight = 1
[[operation.statement]]
sql = \"SELECT a FROM one\"
[[operation.after]]
fixes = \"repeated_reads\"
sql = \"SELECT a FROM one LIMIT 1\"
[[operation]]
name = \"two\"
weight = 1
[[operation.statement]]
sql = \"SELECT a FROM two\"
[[operation.after]]
fixes = \"repeated_reads\"
sql = \"SELECT a FROM two LIMIT 1\"
";

    fn finding(sql: &str, kind: &str, accepted: bool) -> Finding {
        let fingerprint = fingerprint::hex(fingerprint::scan(sql.as_bytes()).id);
        let id = format!("{kind}-{fingerprint}");
        Finding { id, kind: kind.into(), fingerprint, accepted, ..Finding::default() }
    }

    #[test]
    fn only_a_fault_reported_on_the_operation_itself_is_repaired() {
        let workload = Workload::parse(TWO).unwrap();
        let reported = finding("SELECT a FROM one", "repeated_reads", true);
        let (after, applied) = repaired(&workload, std::slice::from_ref(&reported));
        assert_eq!((after.operations[0].after.len(), after.operations[1].after.len()), (1, 0));
        assert_eq!(applied, BTreeSet::from([reported.id]));
    }

    #[test]
    fn what_was_not_reported_or_not_agreed_to_is_not_repaired() {
        let workload = Workload::parse(TWO).unwrap();
        let other = finding("SELECT a FROM one", "n_plus_one", true);
        let refused = finding("SELECT a FROM two", "repeated_reads", false);
        for findings in [vec![], vec![other], vec![refused]] {
            let (after, applied) = repaired(&workload, &findings);
            assert!(
                after.operations.iter().all(|operation| operation.after.is_empty()) && applied.is_empty()
            );
        }
    }
}
