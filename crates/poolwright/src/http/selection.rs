//! Which fingerprints have series of their own, so that there are few, they do not flap, and no counter goes back.
//!
//! The 50 that took most server time of late have one. A newcomer gets one at once while there is room, else after it
//! was among those 50 for two minutes. Nobody loses it by falling behind: only when 100 are taken and a newcomer waits,
//! the one longest out of the 50 gives way, if it has been out for 15 minutes.
//!
//! Everything else is in `other`, one for each pool. What a fingerprint did while it was in `other` stays there: its own
//! series counts from zero. When it gives way, `other` takes over what its series had. So every series only rises, and
//! the sum over `fingerprint` is exact at all times; the price is one step in `other` when a fingerprint gives way.

use std::collections::HashMap;

use stats::{FingerprintSnapshot, Snapshot};

/// Public id of all that has no series of its own.
pub(super) const OTHER: &str = "other";

/// How many, and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Ranks that deserve a series.
    pub top: usize,
    /// Most series of their own.
    pub most: usize,
    /// How long a newcomer must be in the top when the top's places are taken, in µs.
    pub enter_us: u64,
    /// How long one must be out of the top before it may give way, in µs.
    pub leave_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { top: 50, most: 100, enter_us: 120_000_000, leave_us: 900_000_000 }
    }
}

/// Time in µs in which a fingerprint's rank forgets 63 % of what it was built on.
const MEMORY_US: f64 = 300e6;

/// Pool and id.
type Key = (String, String);

/// The selection's memory from one page to the next.
#[derive(Debug, Default)]
pub(super) struct Selection {
    limits: Limits,
    now_us: u64,
    known: HashMap<Key, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Server time at the last page.
    spent_us: u64,
    /// Server time of late.
    recent_us: f64,
    in_top_since_us: Option<u64>,
    was_in_other: bool,
    place: Option<Place>,
}

/// A fingerprint's series.
#[derive(Debug)]
struct Place {
    /// What it had done before, which `other` keeps.
    base: FingerprintSnapshot,
    out_since_us: Option<u64>,
}

impl Selection {
    #[cfg(test)]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What to show of `snapshot`, by pool and id; `other` is there for every pool. Snapshots come in their order.
    pub fn choose(&mut self, snapshot: &Snapshot) -> Vec<FingerprintSnapshot> {
        let ranked = self.rank(snapshot);
        self.give_places(&ranked);
        let mut shown = Vec::new();
        let mut others: Vec<FingerprintSnapshot> =
            snapshot.pools.iter().map(|pool| other_of(&pool.name)).collect();
        for fingerprint in &snapshot.fingerprints {
            let known = self.known.get_mut(&key(fingerprint));
            let place = known.as_ref().and_then(|known| known.place.as_ref());
            let in_other = place.map_or(fingerprint, |place| &place.base);
            if in_other.calls > 0 {
                let at = others.iter().position(|other| other.pool == fingerprint.pool);
                let at = at.unwrap_or_else(|| {
                    others.push(other_of(&fingerprint.pool));
                    others.len() - 1
                });
                add(&mut others[at], in_other);
            }
            if let Some(place) = place {
                shown.push(less(fingerprint, &place.base));
            } else if let Some(known) = known {
                known.was_in_other = true;
            }
        }
        shown.sort_by(|a, b| (&a.pool, &a.id).cmp(&(&b.pool, &b.id)));
        shown.extend(others);
        shown
    }

    /// All but `other`, most server time of late first.
    fn rank<'a>(&mut self, snapshot: &'a Snapshot) -> Vec<&'a FingerprintSnapshot> {
        let passed_us = snapshot.uptime_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(snapshot.uptime_us);
        let keep = (-(passed_us as f64) / MEMORY_US).exp();
        let mut ranked: Vec<(f64, &FingerprintSnapshot)> = Vec::new();
        for fingerprint in snapshot.fingerprints.iter().filter(|f| f.id != OTHER && f.calls > 0) {
            let known = self.known.entry(key(fingerprint)).or_default();
            let spent_us = fingerprint.server_time.sum_us();
            known.recent_us = known.recent_us * keep + spent_us.saturating_sub(known.spent_us) as f64;
            known.spent_us = spent_us;
            ranked.push((known.recent_us, fingerprint));
        }
        ranked.sort_by(|(a, f), (b, g)| b.total_cmp(a).then_with(|| (&f.pool, &f.id).cmp(&(&g.pool, &g.id))));
        ranked.into_iter().map(|(_, fingerprint)| fingerprint).collect()
    }

    fn give_places(&mut self, ranked: &[&FingerprintSnapshot]) {
        let now_us = self.now_us;
        for (rank, fingerprint) in ranked.iter().enumerate() {
            let Some(known) = self.known.get_mut(&key(fingerprint)) else { continue };
            let in_top = rank < self.limits.top;
            known.in_top_since_us = in_top.then(|| known.in_top_since_us.unwrap_or(now_us));
            if let Some(place) = &mut known.place {
                place.out_since_us = (!in_top).then(|| place.out_since_us.unwrap_or(now_us));
            }
        }
        let mut taken = self.known.values().filter(|known| known.place.is_some()).count();
        for fingerprint in ranked.iter().take(self.limits.top) {
            let key = key(fingerprint);
            let Some(known) = self.known.get(&key).filter(|known| known.place.is_none()) else { continue };
            let waited_us = now_us - known.in_top_since_us.unwrap_or(now_us);
            if taken >= self.limits.top && waited_us < self.limits.enter_us {
                continue;
            }
            if taken >= self.limits.most {
                if !self.free_a_place() {
                    continue;
                }
                taken -= 1;
            }
            let Some(known) = self.known.get_mut(&key) else { continue };
            let base = if known.was_in_other { (*fingerprint).clone() } else { Default::default() };
            known.place = Some(Place { base, out_since_us: None });
            taken += 1;
        }
    }

    /// Takes the place of the one longest out of the top; false when nobody has been out long enough.
    fn free_a_place(&mut self) -> bool {
        let out = |known: &Known| known.place.as_ref().and_then(|place| place.out_since_us);
        let longest =
            self.known.values_mut().filter(|known| out(known).is_some()).min_by_key(|known| out(known));
        let Some(known) = longest else { return false };
        if out(known).is_none_or(|since_us| self.now_us - since_us < self.limits.leave_us) {
            return false;
        }
        known.place = None;
        true
    }
}

fn key(fingerprint: &FingerprintSnapshot) -> Key {
    (fingerprint.pool.clone(), fingerprint.id.clone())
}

fn other_of(pool: &str) -> FingerprintSnapshot {
    FingerprintSnapshot {
        pool: pool.to_owned(),
        id: OTHER.to_owned(),
        query: OTHER.to_owned(),
        command: OTHER.to_owned(),
        ..FingerprintSnapshot::default()
    }
}

/// Adds the counters that are shown.
fn add(sum: &mut FingerprintSnapshot, part: &FingerprintSnapshot) {
    sum.calls += part.calls;
    sum.errors += part.errors;
    sum.rows += part.rows;
    sum.bytes += part.bytes;
    sum.hold_us += part.hold_us;
    sum.server_time.merge(&part.server_time);
    sum.acquire_wait.merge(&part.acquire_wait);
}

/// The counters that are shown, without those of `base`, a former state.
fn less(now: &FingerprintSnapshot, base: &FingerprintSnapshot) -> FingerprintSnapshot {
    FingerprintSnapshot {
        calls: now.calls.saturating_sub(base.calls),
        errors: now.errors.saturating_sub(base.errors),
        rows: now.rows.saturating_sub(base.rows),
        bytes: now.bytes.saturating_sub(base.bytes),
        hold_us: now.hold_us.saturating_sub(base.hold_us),
        server_time: now.server_time.since(&base.server_time),
        acquire_wait: now.acquire_wait.since(&base.acquire_wait),
        ..now.clone()
    }
}

#[cfg(test)]
mod tests;
