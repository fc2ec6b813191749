//! What the dashboard's main panels show of a run, asked of Prometheus itself.
//!
//! The expressions are those of `grafana/poolwright.json`, embedded. Its variables `$job`, `$instance` and `$pool`
//! become `.*`. For the charts `$__rate_interval` is a twentieth of the run (at most 20 s, at least four scrapes, as in
//! Grafana). For *before* and *after* an expression is evaluated once at the end of the phase's window, with
//! `$__rate_interval` as long as the window: so a rate or a percentile is that of the whole window. A gauge is averaged
//! over it.

use lab::prometheus::{Prometheus, QueryError, Series, fill_in};
use serde::Deserialize;

use crate::report::evidence::{PanelLine, PanelSeries};
use crate::report::model::{Panel, PhaseName};

const DASHBOARD: &str = include_str!("../../../../grafana/poolwright.json");

/// The panels shown in the report, by title, in the report's order.
const MAIN: [&str; 14] = [
    "Query P95",
    "Acquire wait P95",
    "Queries per second",
    "Error share",
    "Server connections by state",
    "Clients by state",
    "Exhausted share of time",
    "Exhaustion events",
    "Busy share",
    "Clients per server",
    "Queries per server connection",
    "Connections created per 1,000 transactions",
    "Memory of Poolwright",
    "Five slowest fingerprints",
];

/// Lines in one chart: as many as the page has colours.
const LINES_MAX: usize = 6;
/// A limit is drawn when it is at most so many times what moves under it.
const LIMIT_DRAWN: f64 = 10.0;
/// Points of one line.
const POINTS_MAX: f64 = 240.0;
/// Longest `$__rate_interval` of a chart, in seconds.
const SMOOTHING_MAX_S: u64 = 20;

/// The part of a phase that its numbers are taken from: the run at the target's rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Whose.
    pub phase: PhaseName,
    /// Its beginning, in unix seconds.
    pub from_s: f64,
    /// Its end, in unix seconds.
    pub to_s: f64,
}

/// What Prometheus said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// For `report.json`: one entry for each line of each main panel.
    pub panels: Vec<Panel>,
    /// For the page: the main panels over time, where one draws them so.
    pub charts: Vec<PanelSeries>,
}

#[derive(Deserialize)]
struct Dashboard {
    panels: Vec<Shown>,
}

/// A panel of the file, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    title: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    field_config: FieldConfig,
}

#[derive(Deserialize, Default)]
struct FieldConfig {
    #[serde(default)]
    defaults: Defaults,
}

#[derive(Deserialize, Default)]
struct Defaults {
    unit: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    #[serde(default)]
    legend_format: String,
}

/// Asks for all main panels from `began_s` to `ended_s` (unix seconds); *before* is baseline's window, *after* is
/// verify's. Blocks for as long as Prometheus takes: some tens of milliseconds for a run of minutes.
///
/// # Errors
/// The first question that Prometheus did not answer.
pub fn ask(
    prometheus: &Prometheus,
    began_s: f64,
    ended_s: f64,
    windows: &[Window],
) -> Result<Answers, QueryError> {
    let mut answers = Answers::default();
    for panel in main_panels() {
        let table = panel.kind == "table";
        // A table's further targets are columns of the same rows.
        let targets = panel.targets.iter().take(if table { 1 } else { usize::MAX });
        let unit = if table { "s" } else { panel.field_config.defaults.unit.as_deref().unwrap_or("") };
        let mut chart =
            PanelSeries { panel: panel.title.clone(), unit: unit_text(unit), ..PanelSeries::default() };
        for target in targets {
            let compared = compare(prometheus, target, windows)?;
            answers.panels.extend(compared.lines.into_iter().map(|(name, before, after)| Panel {
                panel: if name.is_empty() { panel.title.clone() } else { format!("{}: {name}", panel.title) },
                unit: unit_text(unit),
                expr: compared.expr.clone(),
                before,
                after,
            }));
            if !table {
                chart.lines.extend(over_time(prometheus, target, began_s, ended_s)?);
            }
        }
        worth_drawing(&mut chart.lines);
        if !table {
            answers.charts.push(chart);
        }
    }
    Ok(answers)
}

/// Leaves out lines that are zero throughout and limits so far up that nothing else could be told apart; a single line
/// stays as it is.
fn worth_drawing(lines: &mut Vec<PanelLine>) {
    let highest = |line: &PanelLine| line.points.iter().map(|point| point.1.abs()).fold(0.0, f64::max);
    let flat = |line: &PanelLine| line.points.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let moving = lines.iter().filter(|line| !flat(line)).map(highest).fold(0.0, f64::max);
    if lines.len() > 1 && moving > 0.0 {
        lines.retain(|line| highest(line) > 0.0 && (!flat(line) || highest(line) <= LIMIT_DRAWN * moving));
    }
    lines.truncate(LINES_MAX);
}

/// The main panels as the file has them; a test sees to it that none is missing.
fn main_panels() -> Vec<Shown> {
    let all = serde_json::from_str::<Dashboard>(DASHBOARD).map(|dashboard| dashboard.panels);
    let mut main = all.unwrap_or_default();
    main.retain(|panel| MAIN.contains(&panel.title.as_str()));
    main.sort_by_key(|panel| MAIN.iter().position(|title| *title == panel.title));
    main
}

struct Compared {
    expr: String,
    lines: Vec<(String, Option<f64>, Option<f64>)>,
}

/// One expression at the ends of the two windows. Both get the length of the shorter, so that the expression in the
/// report is the same for both.
fn compare(prometheus: &Prometheus, target: &Target, windows: &[Window]) -> Result<Compared, QueryError> {
    let scrape_s = prometheus.scrape().as_secs().max(1);
    let before = windows.iter().find(|window| window.phase == PhaseName::Baseline);
    let after = windows.iter().rev().find(|window| window.phase == PhaseName::Verify);
    let lengths = before.into_iter().chain(after).map(|window| (window.to_s - window.from_s) as u64);
    let length_s = lengths.min().unwrap_or(0).max(4 * scrape_s);
    let mut expr = fill_in(&target.expr, length_s);
    if expr == fill_in(&target.expr, length_s + 1) {
        expr = format!("avg_over_time(({expr})[{length_s}s:{scrape_s}s])");
    }
    let mut lines: Vec<(String, Option<f64>, Option<f64>)> = Vec::new();
    for (window, is_after) in [(before, false), (after, true)] {
        let Some(window) = window else { continue };
        for series in prometheus.query(&expr, window.to_s)? {
            let name = legend(&target.legend_format, &series);
            let value = series.points.last().map(|point| point.1).filter(|value| value.is_finite());
            let at = lines.iter().position(|line| line.0 == name).unwrap_or_else(|| {
                lines.push((name, None, None));
                lines.len() - 1
            });
            let place = if is_after { &mut lines[at].2 } else { &mut lines[at].1 };
            *place = value;
        }
    }
    if lines.is_empty() {
        lines.push((String::new(), None, None));
    }
    Ok(Compared { expr, lines })
}

/// One expression over the whole run, in seconds from its beginning.
fn over_time(
    prometheus: &Prometheus,
    target: &Target,
    began_s: f64,
    ended_s: f64,
) -> Result<Vec<PanelLine>, QueryError> {
    let scrape_s = prometheus.scrape().as_secs().max(1);
    let length_s = (ended_s - began_s).max(0.0);
    let smoothing_s = ((length_s / 20.0) as u64).min(SMOOTHING_MAX_S).max(4 * scrape_s);
    let step_s = ((length_s / POINTS_MAX).ceil() as u64).max(scrape_s);
    let expr = fill_in(&target.expr, smoothing_s);
    let mut lines: Vec<PanelLine> = prometheus
        .query_range(&expr, began_s, ended_s, step_s)?
        .iter()
        .map(|series| PanelLine {
            name: legend(&target.legend_format, series),
            points: series
                .points
                .iter()
                .filter(|point| point.1.is_finite())
                .map(|(at, value)| (at - began_s, *value))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(lines)
}

/// A line's name: the legend with its `{{label}}`s filled in. Without a legend, the query text or whatever labels
/// tell lines apart.
fn legend(format: &str, series: &Series) -> String {
    if format.is_empty() || format == "__auto" {
        if let Some(query) = series.labels.get("query") {
            return query.clone();
        }
        let apart = |name: &str| !matches!(name, "__name__" | "job" | "instance");
        let labels = series.labels.iter().filter(|(name, _)| apart(name)).map(|(_, value)| value.as_str());
        return labels.collect::<Vec<_>>().join(" ");
    }
    let filled = series
        .labels
        .iter()
        .fold(format.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    filled.trim().to_owned()
}

/// Grafana's names of units, for people.
fn unit_text(unit: &str) -> String {
    let text = match unit {
        "percentunit" => "share",
        "reqps" | "cps" => "per second",
        "rowsps" => "rows per second",
        "Bps" => "bytes per second",
        "short" | "none" => "",
        other => other,
    };
    text.to_owned()
}

#[cfg(test)]
mod tests;
