//! `report.html`: one file that needs nothing else, verdict first, with its raw data inside.

use askama::Template;

use super::chart::{Chart, Series};
use super::evidence::{Evidence, PanelSeries};
use super::model::{Check, Phase, PhaseName, Report, Run, SlowQuery};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    evidence: &'a Evidence,
    headline: String,
    latency: String,
    pool: String,
    distribution: String,
    curve: String,
    panels: Vec<(String, String)>,
    data: String,
}

/// The whole page.
///
/// # Errors
/// A value that cannot be formatted, which no report of ours contains.
pub fn render(report: &Report, evidence: &Evidence) -> Result<String, askama::Error> {
    let page = Page {
        report,
        evidence,
        headline: headline(report),
        latency: latency(report, evidence).svg(),
        pool: pool(evidence).svg(),
        distribution: distribution(report, evidence).svg(),
        curve: curve(evidence).svg(),
        panels: panels(evidence),
        data: embedded(report, evidence),
    };
    page.render()
}

/// The verdict in one sentence.
pub fn headline(report: &Report) -> String {
    let failed: Vec<&str> =
        report.verdict.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    let quick = if report.environment.quick { " (a quick run: not a proof)" } else { "" };
    if report.verdict.checks.is_empty() {
        return format!("Planned only: no load was run and no target was checked{quick}.");
    }
    if failed.is_empty() {
        return format!("All {} targets hold{quick}.", report.verdict.checks.len());
    }
    format!(
        "{} of {} targets missed: {}{quick}.",
        failed.len(),
        report.verdict.checks.len(),
        failed.join(", ")
    )
}

fn marks(evidence: &Evidence) -> Vec<(f64, String)> {
    evidence.marks.iter().map(|mark| (mark.at_s, mark.phase.to_string())).collect()
}

fn latency(report: &Report, evidence: &Evidence) -> Chart {
    let points = evidence.latency.iter().map(|point| (point.at_s, point.p95_ms)).collect();
    Chart {
        title: "P95 latency of operations over time".into(),
        x_label: "seconds".into(),
        y_label: "ms".into(),
        y_log: true,
        level: Some((report.targets.p95_ms, format!("target {} ms", report.targets.p95_ms))),
        marks: marks(evidence),
        series: vec![Series { name: "P95".into(), points }],
        ..Chart::default()
    }
}

fn pool(evidence: &Evidence) -> Chart {
    let series = |name: &str, value: fn(&super::evidence::PoolPoint) -> f64| Series {
        name: name.into(),
        points: evidence.pool.iter().map(|point| (point.at_s, value(point))).collect(),
    };
    Chart {
        title: "The pool over time".into(),
        x_label: "seconds".into(),
        y_label: "connections".into(),
        marks: marks(evidence),
        series: vec![
            series("active", |p| f64::from(p.active)),
            series("idle", |p| f64::from(p.idle)),
            series("waiting", |p| f64::from(p.waiting)),
            series("max", |p| f64::from(p.max)),
        ],
        ..Chart::default()
    }
}

fn distribution(report: &Report, evidence: &Evidence) -> Chart {
    let shown = |name: PhaseName| matches!(name, PhaseName::Baseline | PhaseName::Verify);
    Chart {
        title: "Share of operations at or below a latency".into(),
        x_label: "ms, logarithmic".into(),
        y_label: "% of operations".into(),
        x_log: true,
        marks: vec![(report.targets.p95_ms, "target".into())],
        level: Some((95.0, "95 %".into())),
        series: evidence
            .distributions
            .iter()
            .filter(|distribution| shown(distribution.phase))
            .map(|distribution| Series {
                name: distribution.phase.to_string(),
                points: distribution.points.iter().map(|(ms, share)| (*ms, share * 100.0)).collect(),
            })
            .collect(),
        ..Chart::default()
    }
}

fn curve(evidence: &Evidence) -> Chart {
    let points = evidence.curve.iter().map(|point| (f64::from(point.size), point.wait_p95_ms)).collect();
    Chart {
        title: "Predicted wait for a server against pool size".into(),
        x_label: "servers".into(),
        y_label: "wait P95, ms".into(),
        series: vec![Series { name: "wait P95".into(), points }],
        ..Chart::default()
    }
}

/// How far apart a panel's points are where none is missing.
fn step(panel: &PanelSeries) -> Option<f64> {
    let steps = panel.lines.iter().flat_map(|line| line.points.windows(2)).map(|pair| pair[1].0 - pair[0].0);
    steps.reduce(f64::min)
}

fn panels(evidence: &Evidence) -> Vec<(String, String)> {
    evidence
        .panels
        .iter()
        .map(|panel| {
            let chart = Chart {
                title: panel.panel.clone(),
                x_label: "seconds".into(),
                y_label: panel.unit.clone(),
                marks: marks(evidence),
                gap: step(panel).map(|step| 1.5 * step),
                series: panel
                    .lines
                    .iter()
                    .map(|line| Series { name: line.name.clone(), points: line.points.clone() })
                    .collect(),
                ..Chart::default()
            };
            (panel.panel.clone(), chart.svg())
        })
        .collect()
}

/// The raw data as JSON that cannot end its `<script>` element.
fn embedded(report: &Report, evidence: &Evidence) -> String {
    let data = serde_json::json!({ "report": report, "evidence": evidence });
    data.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Milliseconds for a table; a dash where there are none.
fn ms(value: &Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

/// A percentile of a run, with `≥` where the rate was not held.
fn bound(run: &Run) -> String {
    let sign = if run.saturated { "≥ " } else { "" };
    format!("{sign}{}", ms(&run.p95_ms))
}

/// Is a statement over the bound that is flagged?
fn slow(query: &SlowQuery) -> bool {
    query.p95_ms.is_some_and(|p95| p95 > crate::optimize::phases::SLOW_MS)
}

/// Was the phase's run at the target's rate (its last) saturated?
fn saturated(phase: &Phase) -> bool {
    phase.runs.last().is_some_and(|run| run.saturated)
}

fn number(value: &Option<f64>) -> String {
    value.map_or_else(
        || "–".to_owned(),
        |value| {
            if value.abs() >= 1000.0 || value.fract().abs() < 1e-9 {
                format!("{value:.0}")
            } else {
                format!("{value:.2}")
            }
        },
    )
}

fn bytes(value: &Option<u64>) -> String {
    match *value {
        None => "–".to_owned(),
        Some(bytes) if bytes >= 1 << 20 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        Some(bytes) => format!("{:.0} KiB", bytes as f64 / 1024.0),
    }
}

/// The target with the side it is on.
pub fn target(check: &Check) -> String {
    let sign = match check.name.as_str() {
        "P95 latency" => "<",
        "throughput" => "≥",
        _ => "≤",
    };
    format!("{sign} {} {}", number(&Some(check.target)), check.unit)
}

/// A number that is always there.
fn plain(value: &f64) -> String {
    number(&Some(*value))
}
