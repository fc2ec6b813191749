//! What one client did last: finds runs of one fingerprint, repeated values and climbing OFFSETs.

use crate::registry::Shard;

/// Longest gap in µs between two executions of a run.
const GAP_US: u64 = 50_000;

/// Executions from which a run counts.
const RUN_MIN: u64 = 3;

/// Memory of one client, 120 bytes; lives with the client and may move between workers.
#[derive(Clone, Debug)]
pub struct Trail {
    pool: u16,
    last: Option<u32>,
    last_us: u64,
    parent: Option<u32>,
    run: u64,
    run_distinct: u64,
    run_binds: [u64; 4],
    offset: Option<(u32, u64)>,
}

impl Trail {
    /// For a client of the pool with this index.
    pub fn new(pool: u16) -> Self {
        Self {
            pool,
            last: None,
            last_us: 0,
            parent: None,
            run: 0,
            run_distinct: 0,
            run_binds: [0; 4],
            offset: None,
        }
    }

    /// An execution arrived: its fingerprint's slot, a hash of its values, its OFFSET if it has one, and the
    /// time. Transaction control (BEGIN, COMMIT) is better left out by the caller: it would cut runs.
    pub fn observe(
        &mut self,
        shard: &mut Shard,
        slot: u32,
        bind_hash: u64,
        offset: Option<u64>,
        now_us: u64,
    ) {
        let Some(cells) = shard.fingerprint(self.pool, slot) else { return };
        cells.bind(bind_hash, now_us);
        if let Some(offset) = offset {
            let climbing = self.offset.is_some_and(|(last, depth)| last == slot && offset > depth);
            cells.offset(offset, climbing);
            self.offset = Some((slot, offset));
        }
        if self.last != Some(slot) || now_us.saturating_sub(self.last_us) >= GAP_US {
            self.parent = if self.last == Some(slot) { None } else { self.last };
            if now_us.saturating_sub(self.last_us) >= GAP_US {
                self.parent = None;
            }
            self.run = 0;
            self.run_distinct = 0;
            self.run_binds = [0; 4];
        }
        self.run += 1;
        let fresh = self.fresh(bind_hash);
        self.run_distinct += u64::from(fresh);
        if self.run == RUN_MIN {
            cells.runs.add(1);
            cells.calls_in_runs.add(RUN_MIN);
            cells.distinct_binds_in_runs.add(self.run_distinct);
            if let Some(parent) = self.parent {
                cells.parent(parent);
            }
        } else if self.run > RUN_MIN {
            cells.calls_in_runs.add(1);
            cells.distinct_binds_in_runs.add(u64::from(fresh));
        }
        if self.run >= RUN_MIN {
            cells.longest_run.rise_to(self.run);
        }
        self.last = Some(slot);
        self.last_us = now_us;
    }

    /// The answer to the last execution is complete: gaps count from here, not from its arrival.
    pub fn finished(&mut self, now_us: u64) {
        self.last_us = self.last_us.max(now_us);
    }

    /// True when the values are new to this run, as far as 256 bits can tell.
    fn fresh(&mut self, bind_hash: u64) -> bool {
        let bit = bind_hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        let word = &mut self.run_binds[bit as usize / 64];
        let fresh = *word & (1 << (bit % 64)) == 0;
        *word |= 1 << (bit % 64);
        fresh
    }
}
