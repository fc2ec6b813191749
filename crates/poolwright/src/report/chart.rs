//! Charts as inline SVG: lines over time, steps, distributions on a logarithmic axis.
//!
//! Colours come from the page's style sheet (classes `s0`..`s5`), so that light and dark need no second drawing.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points, x ascending.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Read by screen readers.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Unit of the y axis.
    pub y_label: String,
    /// The x axis is logarithmic.
    pub x_log: bool,
    /// The y axis is logarithmic.
    pub y_log: bool,
    /// A dashed line across, with its label.
    pub level: Option<(f64, String)>,
    /// Dashed lines upright, with their labels.
    pub marks: Vec<(f64, String)>,
    /// Points further apart than this are not joined: nothing is known of what lies between.
    pub gap: Option<f64>,
    /// The lines.
    pub series: Vec<Series>,
}

/// Where data meets the paper.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, log: bool, from: f64, to: f64) -> Self {
        let finite = values.filter(|v| v.is_finite() && (!log || *v > 0.0));
        let (mut low, mut high) = finite.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = if log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        if log {
            low = 10f64.powf(low.log10().floor());
            high = 10f64.powf(high.log10().ceil());
        } else {
            low = low.min(0.0);
        }
        if high <= low {
            high = if log { low * 10.0 } else { low + 1.0 };
        }
        Self { low, high, log, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades.min(9)).map(|step| self.low * 10f64.powi(step)).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

impl Chart {
    /// The chart as an `<svg>` element with its legend; a sentence where there is nothing to draw.
    pub fn svg(&self) -> String {
        if self.series.iter().all(|series| series.points.is_empty()) {
            return "<p class=\"none\">Nothing was recorded for this chart.</p>".to_owned();
        }
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let x = Axis::new(all().map(|p| p.0), self.x_log, LEFT, WIDTH - RIGHT);
        let level = self.level.iter().map(|level| level.0);
        let y = Axis::new(all().map(|p| p.1).chain(level), self.y_log, HEIGHT - BOTTOM, TOP);
        let mut out = String::new();
        let title = escape(&self.title);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
        );
        self.grid(&mut out, &x, &y);
        for (number, series) in self.series.iter().enumerate() {
            self.line(&mut out, series, number, &x, &y);
        }
        out.push_str("</svg>");
        self.legend(&mut out);
        out
    }

    fn line(&self, out: &mut String, series: &Series, number: usize, x: &Axis, y: &Axis) {
        let points: Vec<(f64, f64)> =
            series.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
        for piece in points.chunk_by(|a, b| self.gap.is_none_or(|gap| b.0 - a.0 <= gap)) {
            let _ = write!(out, "<polyline class=\"s{number}\" points=\"");
            for (px, py) in piece {
                let _ = write!(out, "{:.1},{:.1} ", x.place(*px), y.place(*py));
            }
            if let [(px, py)] = piece {
                // A point on its own shows as a short dash.
                let _ = write!(out, "{:.1},{:.1}", x.place(*px) + 2.0, y.place(*py));
            }
            out.push_str("\"/>");
        }
    }

    fn grid(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in y.ticks() {
            let at = y.place(tick);
            let label = short(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            let label = short(tick);
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 15.0
            );
        }
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text class=\"tick\" x=\"4\" y=\"{TOP}\">{}</text>",
            HEIGHT - 4.0,
            escape(&self.x_label),
            escape(&self.y_label)
        );
        for (at, label) in &self.marks {
            let at = x.place(*at);
            let _ = write!(
                out,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at + 3.0,
                TOP + 8.0,
                escape(label)
            );
        }
        if let Some((value, label)) = &self.level {
            let at = y.place(*value);
            let _ = write!(
                out,
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                at - 4.0,
                escape(label)
            );
        }
    }

    fn legend(&self, out: &mut String) {
        if self.series.len() < 2 {
            return;
        }
        out.push_str("<p class=\"legend\">");
        for (number, series) in self.series.iter().enumerate() {
            let _ = write!(out, "<span class=\"k{number}\">{}</span> ", escape(&series.name));
        }
        out.push_str("</p>");
    }
}

/// A number in few characters: `1200` -> `1.2k`.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{}M", trim(value / 1e6))
    } else if size >= 1e3 {
        format!("{}k", trim(value / 1e3))
    } else {
        trim(value)
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text that may stand between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
