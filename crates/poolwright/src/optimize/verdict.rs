//! Whether the targets hold: pure arithmetic over the measured phases.

use crate::report::model::{Check, Phase, PhaseName, Targets, Verdict};

/// Judges verify against the targets, with baseline beside it. What was not measured does not pass.
pub fn judge(phases: &[Phase], targets: &Targets) -> Verdict {
    let before = phases.iter().find(|phase| phase.name == PhaseName::Baseline);
    let after = phases.iter().rev().find(|phase| phase.name == PhaseName::Verify);
    let checks = vec![
        latency(before, after, targets),
        throughput(before, after, targets),
        exhaustion(before, after, targets),
        memory(before, after, targets),
    ];
    Verdict { passed: checks.iter().all(|check| check.passed), checks }
}

fn saturated(phase: Option<&Phase>) -> bool {
    phase.and_then(|phase| phase.runs.last()).is_none_or(|run| run.saturated)
}

/// The run at the target's rate was disturbed by the generator itself.
fn invalid(phase: Option<&Phase>) -> bool {
    phase.and_then(|phase| phase.runs.last()).is_none_or(|run| !run.valid)
}

fn latency(before: Option<&Phase>, after: Option<&Phase>, targets: &Targets) -> Check {
    let value = |phase: Option<&Phase>| phase.and_then(|phase| phase.p95_ms);
    let reached = value(after).is_some_and(|p95| p95 < targets.p95_ms);
    let note = match (saturated(before), invalid(after)) {
        (_, true) => "; the run is invalid: the generator itself was late",
        (true, false) => "; before is a lower bound",
        (false, false) => "",
    };
    Check {
        name: "P95 latency".into(),
        unit: "ms".into(),
        target: targets.p95_ms,
        before: value(before),
        after: value(after),
        measured_at: format!("operations at the target's rate{note}"),
        passed: reached && !saturated(after) && !invalid(after),
    }
}

fn throughput(before: Option<&Phase>, after: Option<&Phase>, targets: &Targets) -> Check {
    let value = |phase: Option<&Phase>| phase.and_then(|phase| phase.sustained_qps);
    Check {
        name: "throughput".into(),
        unit: "queries/s".into(),
        target: targets.qps,
        before: value(before),
        after: value(after),
        measured_at: "the highest rate sustained".into(),
        passed: value(after).is_some_and(|qps| qps >= targets.qps),
    }
}

fn exhaustion(before: Option<&Phase>, after: Option<&Phase>, targets: &Targets) -> Check {
    let value = |phase: Option<&Phase>| phase.map(|phase| phase.exhaustion_events as f64);
    let measured = after.is_some_and(|phase| !phase.runs.is_empty());
    Check {
        name: "pool exhaustion".into(),
        unit: "events".into(),
        target: targets.exhaustion_events as f64,
        before: value(before),
        after: value(after),
        measured_at: "the run at the target's rate".into(),
        passed: measured && after.is_some_and(|phase| phase.exhaustion_events <= targets.exhaustion_events),
    }
}

fn memory(before: Option<&Phase>, after: Option<&Phase>, targets: &Targets) -> Check {
    let value =
        |phase: Option<&Phase>| phase.and_then(|phase| phase.idle_memory_bytes).map(|bytes| bytes as f64);
    let ratio = match (value(before), value(after)) {
        (Some(before), Some(after)) if before > 0.0 => Some(after / before),
        _ => None,
    };
    Check {
        name: "idle memory".into(),
        unit: "of the baseline".into(),
        target: targets.memory_ratio,
        before: value(before).map(|_| 1.0),
        after: ratio,
        measured_at: "Pss_Anon + Pss_File of the backends, and Poolwright's own, after the idle time-out"
            .into(),
        passed: ratio.is_some_and(|ratio| ratio <= targets.memory_ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Run;

    fn phase(name: PhaseName, p95_ms: f64, qps: f64, memory: u64) -> Phase {
        Phase {
            name,
            runs: vec![Run { samples: 100, valid: true, ..Run::default() }],
            p95_ms: Some(p95_ms),
            sustained_qps: Some(qps),
            idle_memory_bytes: Some(memory),
            ..Phase::default()
        }
    }

    #[test]
    fn all_four_hold() {
        let phases = [phase(PhaseName::Baseline, 900.0, 20.0, 80), phase(PhaseName::Verify, 20.0, 60.0, 40)];
        assert!(judge(&phases, &Targets::default()).passed);
    }

    #[test]
    fn the_bound_itself_is_too_slow() {
        let phases = [phase(PhaseName::Baseline, 900.0, 20.0, 80), phase(PhaseName::Verify, 75.0, 60.0, 40)];
        let verdict = judge(&phases, &Targets::default());
        let missed: Vec<_> =
            verdict.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
        assert_eq!(missed, ["P95 latency"]);
    }

    #[test]
    fn a_saturated_run_does_not_pass() {
        let mut after = phase(PhaseName::Verify, 20.0, 60.0, 40);
        after.runs[0].saturated = true;
        let phases = [phase(PhaseName::Baseline, 900.0, 20.0, 80), after];
        assert!(!judge(&phases, &Targets::default()).passed);
    }

    #[test]
    fn a_run_that_the_generator_disturbed_does_not_pass() {
        let mut after = phase(PhaseName::Verify, 20.0, 60.0, 40);
        after.runs[0].valid = false;
        let phases = [phase(PhaseName::Baseline, 900.0, 20.0, 80), after];
        assert!(!judge(&phases, &Targets::default()).passed);
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let verdict = judge(&[], &Targets::default());
        assert!(verdict.checks.iter().all(|check| !check.passed));
    }
}
