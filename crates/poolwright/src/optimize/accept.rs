//! What the user agreed to.

use std::collections::BTreeSet;

use advisor::queries::Finding;

/// Findings agreed to, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// All findings that leave the rows as they are.
    pub all: bool,
    /// These, if they leave the rows as they are.
    pub ids: BTreeSet<String>,
    /// These, though they change the rows.
    pub different_rows: BTreeSet<String>,
}

impl Acceptance {
    /// Whether this finding was agreed to. `all` never takes one that changes the rows.
    pub fn takes(&self, finding: &Finding) -> bool {
        if finding.same_rows {
            self.all || self.ids.contains(&finding.id) || self.different_rows.contains(&finding.id)
        } else {
            self.different_rows.contains(&finding.id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_takes_nothing_that_changes_the_rows() {
        let finding = |same_rows| Finding {
            id: "kind-1".into(),
            kind: "kind".into(),
            fingerprint: "1".into(),
            evidence: String::new(),
            sql_after: None,
            same_rows,
            live: false,
        };
        let all = Acceptance { all: true, ids: ["kind-1".to_owned()].into(), ..Acceptance::default() };
        assert!(all.takes(&finding(true)));
        assert!(!all.takes(&finding(false)));
        let named = Acceptance { different_rows: ["kind-1".to_owned()].into(), ..Acceptance::default() };
        assert!(named.takes(&finding(false)));
    }
}
