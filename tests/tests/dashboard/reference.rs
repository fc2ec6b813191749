//! `docs/metrics.md` against the live page: every metric with its type, labels, unit and meaning, and no other.
//! `UPDATE_REFERENCE=1` writes the table anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::board;
use crate::page::Family;

const BEGIN: &str = "<!-- table: written by tests/tests/dashboard with UPDATE_REFERENCE=1 -->\n";

fn file() -> PathBuf {
    board::root().join("docs/metrics.md")
}

/// What the file says otherwise.
pub fn differences(families: &BTreeMap<String, Family>) -> Vec<String> {
    let text = std::fs::read_to_string(file()).unwrap();
    let (before, written) = text.split_once(BEGIN).expect("docs/metrics.md has a mark before its table");
    let table = table(families);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(file(), format!("{before}{BEGIN}{table}")).unwrap();
        return Vec::new();
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (is, should) = (lines(written), lines(&table));
    let missing =
        should.iter().filter(|line| !is.contains(line)).map(|line| format!("docs/metrics.md lacks: {line}"));
    let surplus =
        is.iter().filter(|line| !should.contains(line)).map(|line| format!("docs/metrics.md has: {line}"));
    missing.chain(surplus).collect()
}

fn table(families: &BTreeMap<String, Family>) -> String {
    let mut text = "| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n".to_owned();
    for (name, family) in families {
        let labels: Vec<String> = family.labels().iter().map(|label| format!("`{label}`")).collect();
        text.push_str(&format!(
            "| `{name}` | {} | {} | {} | {} |\n",
            family.kind,
            labels.join(", "),
            unit(name),
            family.help
        ));
    }
    text
}

/// By the suffix, as Prometheus wants it; anything else counts.
fn unit(name: &str) -> &'static str {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    if stem.ends_with("_seconds") {
        "seconds"
    } else if stem.ends_with("_bytes") {
        "bytes"
    } else {
        ""
    }
}
