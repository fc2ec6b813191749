//! Histograms against plain lists of values, and the way from a shard to a snapshot.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use stats::{
    Config, Execution, FingerprintFacts, Histogram, Outcome, PoolSnapshot, Registry, Snapshot, Trail,
};

fn of(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

fn values() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(prop_oneof![0u64..200, 0u64..1_000_000, 0u64..4_000_000_000], 0..200)
}

proptest! {
    #[test]
    fn merging_is_recording_both(a in values(), b in values()) {
        let mut merged = of(&a);
        merged.merge(&of(&b));
        prop_assert_eq!(merged, of(&[a, b].concat()));
    }

    #[test]
    fn subtracting_undoes_merging(a in values(), b in values()) {
        let mut both = of(&a);
        both.merge(&of(&b));
        let (rest, expected) = (both.since(&of(&a)), of(&b));
        prop_assert_eq!(rest.count(), expected.count());
        prop_assert_eq!(rest.sum_us(), expected.sum_us());
        prop_assert!(rest.buckets().eq(expected.buckets()));
        let counts = |h: &Histogram| h.classic().map(|(_, count)| count).collect::<Vec<_>>();
        prop_assert_eq!(counts(&rest), counts(&expected));
    }

    #[test]
    fn quantiles_are_near(mut a in values(), q in 0.0f64..=1.0) {
        let histogram = of(&a);
        a.sort_unstable();
        prop_assert_eq!(histogram.quantile(q).is_none(), a.is_empty());
        let Some(found) = histogram.quantile(q) else { return Ok(()) };
        let exact = a[((q * a.len() as f64).ceil() as usize).clamp(1, a.len()) - 1];
        // At most 1/64, which is 1.6 %, and nothing under 128 µs.
        prop_assert!(found >= exact && found - exact <= exact / 64, "{found} {exact}");
    }

    #[test]
    fn classic_counts_are_exact(a in values()) {
        for (bound, count) in of(&a).classic() {
            prop_assert_eq!(count, a.iter().filter(|value| **value <= bound).count() as u64);
        }
    }
}

#[test]
fn shards_become_a_snapshot() {
    let registry = Registry::new(Config { workers: 2, extra_bounds_us: vec![75_000], ..Config::default() });
    for worker in 0..2 {
        let mut shard = registry.shard(worker);
        let execution = Execution { slot: 3, server_us: 70_000, rows: 5, ..Execution::default() };
        shard.execution(execution);
        shard.execution(Execution { error: Some(*b"57014"), ..execution });
        shard.checkout(0, 10 + worker as u64, 20, 30);
        shard.transaction(0, Outcome::Commit, 100, 10);
        shard.server_created(0, 500);
        shard.server_closed(0, "idle");
        shard.connect_failed(0, *b"53300");
    }
    let pool = registry.pool(0);
    assert_eq!((pool.queries, pool.rows, pool.created), (4, 20, 2));
    assert_eq!((pool.errors["57"], pool.closed["idle"], pool.connect_failures["53300"]), (2, 2, 2));
    assert_eq!(pool.transactions["commit"], 2);
    assert_eq!(pool.query.classic().find(|(bound, _)| *bound == 75_000), Some((75_000, 4)));
    assert_eq!(pool.checkouts.iter().map(|c| c.arrived_us).collect::<Vec<_>>(), [10, 11]);
    let facts = |slot: u32| FingerprintFacts { id: slot.to_string(), ..FingerprintFacts::default() };
    let fingerprints = registry.fingerprints(0, "bot", facts);
    assert_eq!((fingerprints.len(), fingerprints[0].id.as_str(), fingerprints[0].calls), (1, "3", 4));
    let snapshot = Snapshot { pools: vec![pool], fingerprints, ..Snapshot::default() };
    let nothing = snapshot.since(&snapshot);
    assert_eq!((nothing.pools[0].queries, nothing.fingerprints.len()), (0, 0));
    assert!(nothing.pools[0].checkouts.is_empty() && nothing.pools[0].query.is_empty());
    assert_eq!(
        snapshot.since(&Snapshot { pools: vec![PoolSnapshot::default()], ..Snapshot::default() }).pools,
        snapshot.pools
    );
}

#[test]
fn a_restart_in_between_leaves_the_whole() {
    let snapshot = |taken_unix_us, uptime_us, queries| Snapshot {
        taken_unix_us,
        uptime_us,
        pools: vec![PoolSnapshot {
            name: "bot".into(),
            queries,
            query: of(&vec![5; queries as usize]),
            ..PoolSnapshot::default()
        }],
        ..Snapshot::default()
    };
    let queries = |now: &Snapshot, earlier: &Snapshot| {
        let pool = now.since(earlier).pools.remove(0);
        (pool.queries, pool.query.count())
    };
    let earlier = snapshot(1_000, 500, 40);
    assert_eq!(queries(&snapshot(1_100, 600, 50), &earlier), (10, 10), "the same process");
    assert_eq!(queries(&snapshot(1_100, 50, 7), &earlier), (7, 7), "a younger one");
    assert_eq!(
        queries(&snapshot(9_000, 7_000, 90), &earlier),
        (90, 90),
        "one that ran longer and counted more"
    );
    assert_eq!(queries(&snapshot(900, 600, 50), &earlier), (10, 10), "the clock was set back");
}

#[test]
fn the_ring_keeps_the_newest() {
    let registry = Registry::new(Config::default());
    let mut shard = registry.shard(0);
    (0..100_000).for_each(|n| shard.checkout(0, n, 1, 2));
    let kept = registry.pool(0).checkouts;
    assert!(kept.len() > 30_000 && kept.len() <= stats::CHECKOUTS_MAX);
    assert_eq!(kept.last().unwrap().arrived_us, 99_999);
}

#[test]
fn trails_find_runs_repeats_and_climbing_offsets() {
    let registry = Registry::new(Config::default());
    let mut shard = registry.shard(0);
    let mut trail = Trail::new(0);
    let mut now_us = 0;
    for round in 0..10 {
        now_us += 1_000_000;
        trail.observe(&mut shard, 1, 99, None, now_us);
        for n in 0..5 {
            // The server takes long; the client does not.
            now_us += 200_000;
            trail.finished(now_us);
            trail.observe(&mut shard, 2, round * 5 + n, None, now_us + 10);
        }
        trail.observe(&mut shard, 4, 0, Some(round * 50), now_us + 20);
    }
    let all = registry
        .fingerprints(0, "bot", |slot| FingerprintFacts { id: slot.to_string(), ..Default::default() });
    let (parent, child, page) = (&all[0], &all[1], &all[2]);
    assert_eq!((parent.repeats.hits, parent.repeats.calls, parent.binds), (9, 10, 1));
    assert_eq!((child.bursts.runs, child.bursts.calls_in_runs, child.bursts.longest_run), (10, 50, 5));
    assert_eq!((child.bursts.parent.as_deref(), child.bursts.parent_calls), (Some("1"), 10));
    assert!(child.bursts.distinct_binds_in_runs >= 45 && (48..=52).contains(&child.binds));
    let depth = page.offset.as_ref().unwrap();
    assert_eq!((depth.min, depth.max, depth.count, depth.climbing), (0, 450, 10, 9));
}
