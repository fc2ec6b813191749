//! Prometheus' text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write;

use stats::Histogram;

/// Labels of a sample.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics under construction. A family's samples follow its head.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
    name: String,
}

impl Page {
    /// Begins a family. `kind` is `gauge`, `counter` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.name.clear();
        self.name.push_str(name);
    }

    /// One sample of the family.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.line("", labels, None, value);
    }

    /// One histogram of the family, in seconds.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        // Bounds have at most microseconds: their decimal form is exact and short.
        for (bound_us, count) in histogram.classic() {
            self.line("_bucket", labels, Some(&seconds(bound_us).to_string()), count as f64);
        }
        // Counted like the buckets above: a worker may count while they are read, and no bucket may pass the last.
        let count = histogram.classic_count() as f64;
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, seconds(histogram.sum_us()));
        self.line("_count", labels, None, count);
    }

    /// The text so far.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: f64) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Microseconds as seconds.
pub(crate) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Label values escape backslash, quote and line feed; other control characters say nothing and go.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            control if control.is_control() => text.push(' '),
            plain => text.push(plain),
        }
    }
}
