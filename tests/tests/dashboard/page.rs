//! A page of metrics, read.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// One family with its samples.
#[derive(Debug, Default)]
pub struct Family {
    /// `gauge`, `counter` or `histogram`.
    pub kind: String,
    /// Its help text.
    pub help: String,
    /// Name (with a histogram's suffix), labels and value.
    pub samples: Vec<(String, Labels, f64)>,
}

impl Family {
    /// Names of its labels, those of buckets left out.
    pub fn labels(&self) -> BTreeSet<&str> {
        let all = self.samples.iter().flat_map(|(_, labels, _)| labels.keys().map(String::as_str));
        all.filter(|label| *label != "le").collect()
    }

    /// Values of one label.
    pub fn values(&self, label: &str) -> BTreeSet<&str> {
        self.samples.iter().filter_map(|(_, labels, _)| labels.get(label).map(String::as_str)).collect()
    }

    /// Sum of its samples that have this label value.
    pub fn sum_where(&self, label: &str, value: &str) -> f64 {
        let found =
            self.samples.iter().filter(|(_, labels, _)| labels.get(label).is_some_and(|v| v == value));
        found.map(|sample| sample.2).sum()
    }
}

/// Families by name.
pub fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (family, help) = rest.split_once(' ').unwrap();
            family.clone_into(&mut name);
            families.entry(name.clone()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap();
            assert_eq!(family, name, "TYPE follows HELP");
            families.get_mut(&name).unwrap().kind = kind.to_owned();
        } else {
            let sample = sample(line);
            assert!(sample.0.starts_with(&name), "{line} stands under {name}");
            families.get_mut(&name).unwrap().samples.push(sample);
        }
    }
    families
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let Some((name, inside)) = head.split_once('{') else {
        return (head.to_owned(), Labels::new(), value.parse().unwrap());
    };
    let mut labels = Labels::new();
    let mut rest = inside.strip_suffix('}').unwrap();
    while let Some((label, behind)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut characters = behind.char_indices();
        let end = loop {
            match characters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => match characters.next().unwrap().1 {
                    'n' => text.push('\n'),
                    escaped => text.push(escaped),
                },
                (_, plain) => text.push(plain),
            }
        };
        labels.insert(label.trim_start_matches(',').to_owned(), text);
        rest = &behind[end + 1..];
    }
    (name.to_owned(), labels, value.parse().unwrap())
}
