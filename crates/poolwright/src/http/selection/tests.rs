#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stats::{Histogram, PoolSnapshot};

use super::*;

const MINUTE_US: u64 = 60_000_000;

/// A pooler's counters, moved by hand.
#[derive(Default)]
struct World {
    now_us: u64,
    done: BTreeMap<String, (u64, Histogram)>,
}

impl World {
    /// `calls` executions of `id`, each of `us`.
    fn run(&mut self, id: &str, calls: u64, us: u64) {
        let (count, histogram) = self.done.entry(id.to_owned()).or_default();
        *count += calls;
        (0..calls).for_each(|_| histogram.record(us));
    }

    fn snapshot(&self) -> Snapshot {
        let fingerprints = self.done.iter().map(|(id, (calls, histogram))| FingerprintSnapshot {
            pool: "bot".into(),
            id: id.clone(),
            calls: *calls,
            rows: calls * 3,
            errors: calls / 2,
            hold_us: histogram.sum_us(),
            server_time: histogram.clone(),
            ..FingerprintSnapshot::default()
        });
        Snapshot {
            uptime_us: self.now_us,
            pools: vec![PoolSnapshot { name: "bot".into(), ..PoolSnapshot::default() }],
            fingerprints: fingerprints.collect(),
            ..Snapshot::default()
        }
    }
}

fn limits(top: usize, most: usize) -> Limits {
    Limits { top, most, ..Limits::default() }
}

fn ids(shown: &[FingerprintSnapshot]) -> BTreeSet<&str> {
    shown.iter().map(|f| f.id.as_str()).collect()
}

fn of<'a>(shown: &'a [FingerprintSnapshot], id: &str) -> &'a FingerprintSnapshot {
    shown.iter().find(|f| f.id == id).unwrap()
}

#[test]
fn a_newcomer_waits_when_the_places_are_taken_and_then_counts_from_zero() {
    let (mut world, mut selection) = (World::default(), Selection::new(limits(2, 3)));
    for id in ["a", "b"] {
        world.run(id, 10, 1_000);
    }
    assert_eq!(ids(&selection.choose(&world.snapshot())), BTreeSet::from(["a", "b", "other"]));
    world.run("c", 10, 500_000);
    let shown = selection.choose(&world.snapshot());
    assert_eq!(ids(&shown), BTreeSet::from(["a", "b", "other"]), "one heavy scrape does not make a place");
    assert_eq!(of(&shown, "other").calls, 10);
    world.now_us += 2 * MINUTE_US;
    world.run("c", 4, 500_000);
    let shown = selection.choose(&world.snapshot());
    assert_eq!(of(&shown, "c").calls, 0, "what is past stays in other");
    assert_eq!(of(&shown, "other").calls, 14);
    world.run("c", 1, 500_000);
    let shown = selection.choose(&world.snapshot());
    assert_eq!((of(&shown, "c").calls, of(&shown, "c").server_time.count()), (1, 1));
    assert_eq!(of(&shown, "other").calls, 14);
}

#[test]
fn falling_behind_costs_no_place_until_another_needs_it() {
    let (mut world, mut selection) = (World::default(), Selection::new(limits(1, 2)));
    world.run("a", 10, 1_000);
    selection.choose(&world.snapshot());
    // b is ahead from now on; a falls behind, and c comes much later.
    for minute in 0..40 {
        world.now_us += MINUTE_US;
        world.run("b", 10, 1_000_000);
        if minute >= 5 {
            world.run("c", 20, 4_000_000);
        }
        let shown = selection.choose(&world.snapshot());
        assert!(ids(&shown).contains("a") || minute >= 15, "a left after {minute} minutes");
    }
    let shown = selection.choose(&world.snapshot());
    assert_eq!(ids(&shown), BTreeSet::from(["b", "c", "other"]));
    let before = of(&shown, "other").calls;
    world.run("a", 1, 1);
    assert_eq!(of(&selection.choose(&world.snapshot()), "other").calls, before + 1);
}

#[test]
fn two_that_take_turns_do_not_flap() {
    let (mut world, mut selection) = (World::default(), Selection::new(limits(1, 2)));
    let mut seen = Vec::new();
    for turn in 0..120 {
        world.now_us += 5_000_000;
        world.run(if turn % 2 == 0 { "a" } else { "b" }, 100, 1_000);
        seen.push(
            ids(&selection.choose(&world.snapshot())).iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(),
        );
    }
    let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes <= 1, "{changes} changes");
}

/// Whatever comes, in any order: series are bounded, no counter goes back, and the sum is exact.
#[test]
fn no_counter_goes_back_and_the_sum_is_exact() {
    for seed in 0..8 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut world, mut selection) = (World::default(), Selection::new(limits(5, 8)));
        let mut before: BTreeMap<String, FingerprintSnapshot> = BTreeMap::new();
        let (mut left, mut entered) = (0, 0);
        for step in 0..600u64 {
            world.now_us += random.random_range(1_000_000..40_000_000);
            // The fashion moves on: now these twelve, a while later others.
            let first = step / 60 * 6;
            for _ in 0..random.random_range(0..6) {
                let id = format!("{:016x}", first + random.random_range(0..12));
                world.run(&id, random.random_range(1..20), random.random_range(100..2_000_000));
            }
            let snapshot = world.snapshot();
            let shown = selection.choose(&snapshot);
            assert!(shown.len() <= 9, "{} series", shown.len());
            let sum = |value: fn(&FingerprintSnapshot) -> u64, all: &[FingerprintSnapshot]| {
                all.iter().map(value).sum::<u64>()
            };
            for value in [
                |f: &FingerprintSnapshot| f.calls,
                |f: &FingerprintSnapshot| f.rows,
                |f: &FingerprintSnapshot| f.errors,
                |f: &FingerprintSnapshot| f.hold_us,
                |f: &FingerprintSnapshot| f.server_time.count(),
                |f: &FingerprintSnapshot| f.server_time.sum_us(),
            ] {
                assert_eq!(sum(value, &shown), sum(value, &snapshot.fingerprints), "step {step}");
            }
            let now: BTreeMap<String, FingerprintSnapshot> =
                shown.into_iter().map(|f| (f.id.clone(), f)).collect();
            for (id, then) in &before {
                let Some(series) = now.get(id) else {
                    left += 1;
                    continue;
                };
                assert!(series.calls >= then.calls && series.hold_us >= then.hold_us, "{id} at step {step}");
                let buckets = series.server_time.classic().zip(then.server_time.classic());
                assert!(buckets.into_iter().all(|(new, old)| new.1 >= old.1), "{id} at step {step}");
            }
            entered += now.keys().filter(|id| !before.contains_key(*id)).count();
            before = now;
        }
        assert!(left > 3 && entered > 8, "seed {seed}: {left} left, {entered} entered");
    }
}
