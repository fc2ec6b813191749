//! What `optimize` and `demo` share: targets, the seed, and how the outcome is told.

use std::path::Path;
use std::process::ExitCode;

use crate::optimize::accept::Acceptance;
use crate::optimize::pace::Pace;
use crate::output;
use crate::report::html;
use crate::report::model::{Phase, Report, Targets};

/// Something failed, and nothing was measured to its end.
pub const FAILED: u8 = 2;

/// Arguments of a measured run.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Short runs; marked as not a proof.
    #[arg(long)]
    pub quick: bool,
    /// Answer with report.json on stdout.
    #[arg(long)]
    pub json: bool,
    /// Seed of the load: the same seed draws the same arrivals and parameters.
    #[arg(long, default_value_t = 20)]
    pub seed: u64,
    /// P95 latency of an operation must stay below this.
    #[arg(long, value_name = "MS", default_value_t = 75.0, value_parser = positive)]
    pub target_p95_ms: f64,
    /// Queries a second to sustain; also the operations a second of the target's rate.
    #[arg(long, value_name = "N", default_value_t = 50.0, value_parser = positive)]
    pub target_qps: f64,
    /// Exhaustion events allowed at the target's rate.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub target_exhaustion: u64,
    /// Idle memory after, over idle memory before, at most.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = positive)]
    pub target_memory_ratio: f64,
    /// Agree to a finding that leaves the rows as they are, by its id; `all` for every such.
    #[arg(long, value_name = "ID|all")]
    pub accept: Vec<String>,
    /// Agree to a finding that changes the rows, by its id.
    #[arg(long, value_name = "ID")]
    pub accept_different_rows: Vec<String>,
}

/// A number over 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number over 0 is needed".to_owned()),
    }
}

impl Common {
    /// The targets.
    pub fn targets(&self) -> Targets {
        Targets {
            p95_ms: self.target_p95_ms,
            qps: self.target_qps,
            exhaustion_events: self.target_exhaustion,
            memory_ratio: self.target_memory_ratio,
        }
    }

    /// How long everything takes.
    pub fn pace(&self) -> Pace {
        if self.quick { Pace::quick() } else { Pace::full() }
    }

    /// What the user agreed to.
    pub fn acceptance(&self) -> Acceptance {
        Acceptance {
            all: self.accept.iter().any(|id| id == "all"),
            ids: self.accept.iter().filter(|id| *id != "all").cloned().collect(),
            different_rows: self.accept_different_rows.iter().cloned().collect(),
        }
    }
}

/// The verdict first, then the checks, the phases and what was found. The exit code is the verdict.
pub fn show(report: &Report, remarks: &[String], out: &Path, json: bool) -> ExitCode {
    if json {
        output::line(&serde_json::to_string_pretty(report).unwrap_or_default());
    } else {
        text(report, remarks, out);
    }
    if report.verdict.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text(report: &Report, remarks: &[String], out: &Path) {
    output::line(&html::headline(report));
    output::line("");
    for check in &report.verdict.checks {
        let held = if check.passed { "holds " } else { "MISSED" };
        let disturbed = check.measured_at.split_once("; ").filter(|_| !check.passed);
        output::line(&format!(
            "  {held}  {:16} {:26} before {}, after {}{}",
            check.name,
            html::target(check),
            number(check.before),
            number(check.after),
            disturbed.map_or_else(String::new, |(_, why)| format!(" ({why})"))
        ));
    }
    if !report.phases.is_empty() {
        output::line("");
        output::line(
            "phase      max/min    P50 ms    P95 ms    P99 ms  queries/s  exhausted  errors  sustained/s",
        );
        report.phases.iter().for_each(|phase| output::line(&row(phase)));
        output::line("");
    }
    for index in &report.indexes {
        let after = number(index.cost_after);
        let before = number(index.cost_before);
        let kept = match (index.kept, index.build_ms) {
            (true, _) => "kept",
            (false, Some(_)) => "dropped again",
            (false, None) => "not built",
        };
        output::line(&format!("index    {} {kept} (planner's cost {before} -> {after})", index.name));
    }
    for finding in &report.findings {
        let state = match (finding.applied, finding.accepted) {
            (true, _) => "applied",
            (false, true) => "agreed to, not applied",
            (false, false) => "advice",
        };
        output::line(&format!("finding  {} ({state}): {}", finding.id, finding.evidence));
    }
    remarks.iter().for_each(|remark| output::line(&format!("note     {remark}")));
    output::line(&format!("report   {}", out.join("report.html").display()));
}

/// A phase at the target's rate, as a line under the table's head.
fn row(phase: &Phase) -> String {
    let last = phase.runs.last();
    let bound = if last.is_some_and(|run| run.saturated) { ">=" } else { "" };
    format!(
        "{:9} {:>8} {:>9} {:>9} {:>9} {:>10} {:>10} {:>7} {:>12}",
        phase.name.as_str(),
        format!("{}/{}", phase.pool.max, phase.pool.min),
        number(phase.p50_ms),
        format!("{bound}{}", number(phase.p95_ms)),
        number(phase.p99_ms),
        number(last.map(|run| run.qps)),
        phase.exhaustion_events,
        phase.errors,
        number(phase.sustained_ops),
    )
}

/// A number in few digits; a dash where there is none.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}
