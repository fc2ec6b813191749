//! What the page draws beside the numbers of `report.json`: series over time and distributions.

use serde::{Deserialize, Serialize};

use super::model::PhaseName;

/// Raw data of the charts; embedded in the page as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Latency over time, one point a second.
    pub latency: Vec<LatencyPoint>,
    /// The pool over time, one point a second.
    pub pool: Vec<PoolPoint>,
    /// When each phase began, in seconds from the start.
    pub marks: Vec<Mark>,
    /// Cumulative distribution of operation latency at the target's rate.
    pub distributions: Vec<Distribution>,
    /// Waiting against pool size, from the replay.
    pub curve: Vec<CurvePoint>,
    /// Why this pool size.
    pub pool_reason: String,
    /// Remarks for the reader: runs that were invalid, tools that were missing.
    pub remarks: Vec<String>,
    /// Panels of the dashboard over time, as Prometheus answered.
    pub panels: Vec<PanelSeries>,
}

/// Latency of one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyPoint {
    /// Seconds from the start.
    pub at_s: f64,
    /// 95th percentile of the operations of that second, in milliseconds.
    pub p95_ms: f64,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolPoint {
    /// Seconds from the start.
    pub at_s: f64,
    /// Servers lent.
    pub active: u32,
    /// Servers idle.
    pub idle: u32,
    /// Clients waiting.
    pub waiting: u32,
    /// The limit.
    pub max: u32,
    /// Connections opened so far.
    pub created: u64,
    /// Connections closed so far.
    pub closed: u64,
}

/// The beginning of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds from the start.
    pub at_s: f64,
    /// Which phase begins.
    pub phase: PhaseName,
}

/// A distribution as (milliseconds, share of the operations at or below).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Whose.
    pub phase: PhaseName,
    /// Points, ascending.
    pub points: Vec<(f64, f64)>,
}

/// Predicted waiting at one pool size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Servers at most.
    pub size: u32,
    /// 95th percentile of the wait, in milliseconds.
    pub wait_p95_ms: f64,
}

/// One panel over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PanelSeries {
    /// The panel's title.
    pub panel: String,
    /// Unit of its values; empty for plain counts.
    pub unit: String,
    /// Its lines, at most six.
    pub lines: Vec<PanelLine>,
}

/// One line of a panel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PanelLine {
    /// Its name in the legend; empty where it is the only one.
    pub name: String,
    /// (seconds from the start, value), ascending.
    pub points: Vec<(f64, f64)>,
}
