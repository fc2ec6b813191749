//! The live rewrites of one pool: which are in force, what they replace, and what became of them.
//!
//! A rewrite matches by the full normalised text; the pool stands for database and user, relay sees to the
//! search path. Parse may declare no parameter types, or those that the rewrite was proven with.

use std::collections::{BTreeSet, HashMap};

use fingerprint::Template;
use relay::{Replacement, Rewriting, StatementInfo};
use stats::RewriteState;

use crate::settings::Rewrite;

/// Longest normalised text compared, in bytes. Longer texts are not replaced.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Rewrites of former configurations that are still shown.
const REVOKED_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Active,
    /// A server did not take the replacement, or it could not be one.
    Failed,
    /// By the console, or gone from the configuration.
    Revoked,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
        }
    }
}

struct Live {
    number: u32,
    settings: Rewrite,
    /// Normalised.
    original: String,
    replacement: Template,
    standing: Standing,
    applied: u64,
    failures: u64,
}

/// All rewrites of a pool.
#[derive(Default)]
pub(super) struct Rewrites {
    live: Vec<Live>,
    /// Places in `live` of the active ones, by fingerprint id.
    active: HashMap<u64, Vec<usize>>,
    numbered: u32,
}

impl Rewrites {
    pub(super) fn new(settings: &[Rewrite]) -> Self {
        let mut rewrites = Self::default();
        rewrites.apply(settings);
        rewrites
    }

    /// None is in force.
    pub(super) fn idle(&self) -> bool {
        self.active.is_empty()
    }

    /// Takes over a configuration. A rewrite that stands in it unchanged keeps its counters; if it was revoked by
    /// hand it stays so, if it had failed it gets another chance. One that is gone is revoked.
    pub(super) fn apply(&mut self, settings: &[Rewrite]) {
        let mut before = std::mem::take(&mut self.live);
        for new in settings {
            let known = before.iter().position(|live| live.settings == *new);
            let mut live = match known {
                Some(at) => before.swap_remove(at),
                None => {
                    self.numbered += 1;
                    Live {
                        number: self.numbered,
                        settings: new.clone(),
                        original: fingerprint::normalize(new.original.as_bytes(), TEXT_BYTES_MAX),
                        replacement: Template::new(&new.replacement),
                        standing: Standing::Active,
                        applied: 0,
                        failures: 0,
                    }
                }
            };
            if live.standing == Standing::Failed {
                live.standing = Standing::Active;
            }
            if live.standing == Standing::Active
                && let Err(reason) = live.check()
            {
                tracing::warn!(rewrite = %live.settings.id, reason, "a rewrite cannot be used");
                live.standing = Standing::Failed;
                live.failures += 1;
            }
            self.live.push(live);
        }
        before.retain(|old| !self.live.iter().any(|live| live.settings.id == old.settings.id));
        before.truncate(REVOKED_MAX);
        for mut live in before {
            live.standing = Standing::Revoked;
            self.live.push(live);
        }
        self.index();
    }

    /// Takes a rewrite out of use; false when there is none of this name in force.
    pub(super) fn revoke(&mut self, id: &str) -> bool {
        let mut found = false;
        for live in self.live.iter_mut().filter(|live| live.settings.id == id) {
            found |= live.standing != Standing::Revoked;
            live.standing = Standing::Revoked;
        }
        self.index();
        found
    }

    /// A server refused the replacement. Gives the rewrite's name the first time.
    pub(super) fn failed(&mut self, number: u32) -> Option<String> {
        let live = self.live.iter_mut().find(|live| live.number == number)?;
        live.failures += 1;
        if live.standing != Standing::Active {
            return None;
        }
        live.standing = Standing::Failed;
        let id = live.settings.id.clone();
        self.index();
        Some(id)
    }

    /// The replacement was executed.
    pub(super) fn applied(&mut self, number: u32) {
        if let Some(live) = self.live.iter_mut().find(|live| live.number == number) {
            live.applied += 1;
        }
    }

    /// For the snapshot.
    pub(super) fn states(&self, pool: &str) -> impl Iterator<Item = RewriteState> {
        self.live.iter().map(|live| RewriteState {
            id: live.settings.id.clone(),
            pool: pool.to_owned(),
            state: live.standing.as_str().to_owned(),
            rows: if live.settings.same_rows { "same" } else { "different" }.to_owned(),
            applied: live.applied,
            failures: live.failures,
        })
    }

    fn index(&mut self) {
        self.active.clear();
        for (at, live) in self.live.iter().enumerate() {
            if live.standing == Standing::Active {
                let id = fingerprint::scan(live.original.as_bytes()).id;
                self.active.entry(id).or_default().push(at);
            }
        }
    }
}

impl Live {
    /// Whether it may be used at all: both read only, with the same parameters.
    fn check(&self) -> Result<(), &'static str> {
        let original = Template::new(&self.original);
        if !fingerprint::reads_only(self.original.as_bytes()) {
            return Err("the original is not a single SELECT");
        }
        if !fingerprint::reads_only(self.settings.replacement.as_bytes()) {
            return Err("the replacement is not a single SELECT");
        }
        if original.places() != self.replacement.places() {
            return Err("the replacement has other parameters than the original");
        }
        if self.original.len() >= TEXT_BYTES_MAX {
            return Err("the original is too long");
        }
        Ok(())
    }

    /// Whether Parse may declare these types (count and OIDs as on the wire).
    fn takes(&self, types: &[u8]) -> bool {
        let Some((count, oids)) = types.split_first_chunk::<2>() else { return false };
        let declared = oids.as_chunks::<4>().0.iter().take(usize::from(u16::from_be_bytes(*count)));
        let mut declared = declared.map(|oid| u32::from_be_bytes(*oid));
        let mut proven = self.settings.parameter_types.iter().copied();
        declared.all(|oid| {
            let expected = proven.next().unwrap_or(0);
            oid == 0 || oid == expected
        })
    }
}

impl Rewriting for Rewrites {
    fn replacement(&mut self, sql: &[u8], info: &StatementInfo, types: &[u8]) -> Option<Replacement> {
        let candidates = self.active.get(&info.id)?;
        let text = fingerprint::normalize(sql, TEXT_BYTES_MAX);
        let live = candidates.iter().map(|at| &self.live[*at]).find(|live| live.original == text)?;
        if !live.takes(types) {
            return None;
        }
        let values = fingerprint::values(sql)?;
        let used: BTreeSet<u16> = (1..).zip(&values).filter(|(_, v)| v.is_some()).map(|(n, _)| n).collect();
        if used != live.replacement.places() {
            return None;
        }
        let literals = values.iter().flatten().any(|value| !value.is_empty());
        Some(Replacement {
            rewrite: live.number,
            text: live.replacement.fill(&values)?,
            trial: literals.then(|| live.replacement.text()),
        })
    }

    fn in_force(&self, rewrite: u32) -> bool {
        self.live.iter().any(|live| live.number == rewrite && live.standing == Standing::Active)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rewrite(original: &str, replacement: &str) -> Rewrite {
        Rewrite {
            id: "one".to_owned(),
            original: original.to_owned(),
            replacement: replacement.to_owned(),
            same_rows: true,
            parameter_types: vec![20],
        }
    }

    fn replaced(rewrites: &mut Rewrites, sql: &str, types: &[u8]) -> Option<String> {
        let info = StatementInfo { id: fingerprint::scan(sql.as_bytes()).id, ..StatementInfo::default() };
        let found = rewrites.replacement(sql.as_bytes(), &info, types)?;
        Some(String::from_utf8(found.text).unwrap())
    }

    #[test]
    fn matches_by_the_whole_text_and_the_types() {
        let mut rewrites =
            Rewrites::new(&[rewrite("select a from t where b=$1", "SELECT a FROM t WHERE b = $1 LIMIT 5")]);
        let any = b"\0\0";
        assert_eq!(
            replaced(&mut rewrites, "SELECT a /* c */ FROM T WHERE b = 7;", any).unwrap(),
            "SELECT a FROM t WHERE b = 7 LIMIT 5"
        );
        assert_eq!(
            replaced(&mut rewrites, "SELECT a FROM t WHERE b = $1", b"\0\x01\0\0\0\x14").unwrap(),
            "SELECT a FROM t WHERE b = $1 LIMIT 5"
        );
        for (sql, types) in [
            ("SELECT a FROM t WHERE b = $1", &b"\0\x01\0\0\0\x19"[..]),
            ("SELECT a FROM t WHERE b = $2", any),
            ("SELECT a FROM t WHERE c = 7", any),
            ("SELECT a FROM t WHERE b = 7; SELECT 1", any),
        ] {
            assert_eq!(replaced(&mut rewrites, sql, types), None, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_a_rewrite_has_failed() {
        for (original, replacement) in [
            ("DELETE FROM t", "SELECT 1"),
            ("SELECT 1 FROM t", "DELETE FROM t"),
            ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t"),
            ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b = 5 LIMIT 1"),
        ] {
            let rewrites = Rewrites::new(&[rewrite(original, replacement)]);
            assert!(rewrites.idle());
            assert_eq!(rewrites.states("p").next().unwrap().state, "failed", "{original}");
        }
    }

    #[test]
    fn what_was_revoked_by_hand_stays_revoked() {
        let settings = [rewrite("SELECT a FROM t", "SELECT a FROM t LIMIT 5")];
        let mut rewrites = Rewrites::new(&settings);
        rewrites.applied(1);
        assert!(rewrites.revoke("one") && rewrites.idle() && !rewrites.revoke("one"));
        rewrites.apply(&settings);
        let state = rewrites.states("p").next().unwrap();
        assert_eq!((state.state.as_str(), state.applied), ("revoked", 1));
        rewrites.apply(&[rewrite("SELECT a FROM t", "SELECT a FROM t LIMIT 6")]);
        assert_eq!(rewrites.states("p").map(|s| s.state).collect::<Vec<_>>(), ["active"]);
        rewrites.apply(&[]);
        assert_eq!(rewrites.states("p").map(|s| s.state).collect::<Vec<_>>(), ["revoked"]);
    }

    #[test]
    fn a_failure_is_told_once_and_forgiven_at_reload() {
        let settings = [rewrite("SELECT a FROM t", "SELECT a FROM t LIMIT 5")];
        let mut rewrites = Rewrites::new(&settings);
        assert_eq!((rewrites.failed(1), rewrites.failed(1)), (Some("one".to_owned()), None));
        assert!(rewrites.idle());
        rewrites.apply(&settings);
        assert!(!rewrites.idle());
    }
}
