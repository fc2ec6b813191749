//! The Prometheus beside a run, with the project's rules.
//!
//! [`start`] with the pooler's metrics address gives one on a free port of 127.0.0.1; dropping it ends it. Where none is
//! installed, the run goes on without, and the error is the remark for the report. [`super::panels::ask`] asks it what
//! the dashboard would. All calls block.
//!
//! ```text
//! let prometheus = prometheus::start(&settings.metrics, Duration::from_secs(1), keep)?;
//! … the phases; each run at the target's rate leaves a Window { phase, from_s, to_s } …
//! let answers = panels::ask(&prometheus, began_s, now_s, &windows)?;
//! report.prometheus = answers.panels;      evidence.panels = answers.charts;
//! with --keep: println(prometheus.address()); let (pid, folder) = prometheus.leave_running();
//! ```

use std::time::Duration;

pub use lab::prometheus::{Prometheus, StartError};

/// The project's recording and alert rules.
const RULES: &str = include_str!("../../../../prometheus/rules/poolwright.yml");

/// Starts it; it scrapes `metrics` (`address:port`) every `scrape`, a whole number of seconds. With `outlives` it may be
/// left running; else it dies with this program, however that ends.
///
/// # Errors
/// None is installed, or it does not start; nothing is left behind.
pub fn start(metrics: &str, scrape: Duration, outlives: bool) -> Result<Prometheus, StartError> {
    let options = lab::prometheus::Options { target: metrics, rules: RULES, scrape, outlives };
    Prometheus::start(&options)
}
