//! Judges statement texts with the `fingerprint` crate; repeated texts by a hash of their bytes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use fingerprint::{Catalog, Effects};
use parking_lot::Mutex;
use relay::{Inspect, PinReason, Place, StatementInfo};

/// Texts remembered per worker.
const REMEMBERED: usize = 4096;

/// Parameters whose changes PostgreSQL 13 and later report. standard_conforming_strings is one, too, but changes what
/// texts mean.
const REPORTED: [&[u8]; 5] =
    [b"application_name", b"client_encoding", b"datestyle", b"intervalstyle", b"timezone"];

/// The judge of one worker.
pub(super) struct Judge {
    catalog: Arc<Mutex<Catalog>>,
    hasher: RandomState,
    seen: Vec<(u64, StatementInfo)>,
}

impl Judge {
    pub(super) fn new(catalog: Arc<Mutex<Catalog>>) -> Self {
        Self { catalog, hasher: RandomState::new(), seen: vec![(0, StatementInfo::default()); REMEMBERED] }
    }

    fn judge(&mut self, sql: &[u8]) -> StatementInfo {
        let shape = fingerprint::scan(sql);
        let slot = self.catalog.lock().intern(sql, &shape);
        let has = |effect| shape.effects.contains(effect);
        let reported = || {
            !has(Effects::MULTIPLE)
                && fingerprint::set_target(sql)
                    .is_some_and(|name| REPORTED.iter().any(|r| r.eq_ignore_ascii_case(name)))
        };
        let pin = if has(Effects::SET_SESSION) && !reported() {
            Some(PinReason::Set)
        } else if has(Effects::SET_CONFIG) {
            Some(PinReason::SetConfig)
        } else if has(Effects::PREPARE) {
            Some(PinReason::Prepare)
        } else if has(Effects::LISTEN) {
            Some(PinReason::Listen)
        } else if has(Effects::TEMP_TABLE) {
            Some(PinReason::TempTable)
        } else if has(Effects::HOLD_CURSOR) {
            Some(PinReason::HoldCursor)
        } else if has(Effects::ADVISORY_LOCK) {
            Some(PinReason::AdvisoryLock)
        } else {
            None
        };
        StatementInfo {
            slot,
            id: shape.id,
            pin,
            exempt: has(Effects::TIMEOUT_EXEMPT),
            control: shape.command.is_transaction_control(),
            set_local: has(Effects::SET_LOCAL),
            deallocates: has(Effects::DEALLOCATE_ONE) && !has(Effects::MULTIPLE),
            discards: shape.effects.intersects(Effects::DEALLOCATE_ALL | Effects::DISCARD_ALL),
            resets: shape.effects.intersects(Effects::RESET_ALL | Effects::DISCARD_ALL),
            offset: match shape.offset {
                None => Place::Absent,
                Some(fingerprint::Place::Param(n)) => Place::Param(n),
                Some(fingerprint::Place::Literal(value)) => Place::Literal(value),
            },
        }
    }
}

impl Inspect for Judge {
    fn statement(&mut self, sql: &[u8]) -> StatementInfo {
        // A keyed hash: nobody can choose texts that meet in one place.
        let hash = self.hasher.hash_one(sql) | 1;
        let at = (hash >> 20) as usize % REMEMBERED;
        let (known, info) = self.seen[at];
        if known == hash {
            return info;
        }
        let info = self.judge(sql);
        self.seen[at] = (hash, info);
        info
    }

    fn deallocated(&mut self, sql: &[u8]) -> Option<Vec<u8>> {
        fingerprint::deallocate_name(sql)
    }
}

impl Judge {
    /// Public id of a fingerprint.
    pub(super) fn name(&self, slot: u32) -> String {
        self.catalog.lock().name(slot)
    }
}
