//! What statistics cost in memory, counted by the allocator: as much as ARCHITECTURE.md says, and not more.
#![allow(unsafe_code, clippy::print_stderr, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use stats::{Config, Execution, Registry, Shard, Trail};

/// Counts the bytes in use.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

const FINGERPRINTS: u32 = 1_000;
const KIB: usize = 1024;

/// Runs each fingerprint so often with server times from `times_us`, and gives the bytes this took for each.
fn bytes_each(shard: &mut Shard, times_us: &[u64]) -> usize {
    let before = IN_USE.load(Relaxed);
    let mut trail = Trail::new(0);
    let mut now_us = 0;
    for slot in 1..=FINGERPRINTS {
        for (n, server_us) in times_us.iter().enumerate() {
            now_us += 100_000;
            trail.observe(shard, slot, n as u64, None, now_us);
            let wait_us = if n % 10 == 0 { server_us / 2 } else { 0 };
            let execution = Execution { slot, wait_us, server_us: *server_us, ..Execution::default() };
            shard.execution(execution);
        }
    }
    (IN_USE.load(Relaxed) - before) / FINGERPRINTS as usize
}

/// One test, for the allocator counts for all threads.
#[test]
fn memory_is_bounded() {
    let fresh = || Registry::new(Config { workers: 1, fingerprints_max: FINGERPRINTS, ..Config::default() });
    let registry = fresh();
    let once = bytes_each(&mut registry.shard(0), &[700]);
    // Ninety quick ones, and some up to a hundred times slower: what a query that is run often looks like.
    let usual: Vec<u64> = (0..90).map(|n| 500 + n * 20).chain((0..10).map(|n| 3_000 + n * 4_700)).collect();
    let registry = fresh();
    let often = bytes_each(&mut registry.shard(0), &usual);
    // Every octave there is.
    let all: Vec<u64> = (0..33).map(|power| 1u64 << power).cycle().take(330).collect();
    let registry = fresh();
    let worst = bytes_each(&mut registry.shard(0), &all);
    // More fingerprints than there is room for cost nothing.
    let before = IN_USE.load(Relaxed);
    let mut shard = registry.shard(0);
    for slot in FINGERPRINTS + 1..FINGERPRINTS + 10_000 {
        shard.execution(Execution { slot, server_us: 9, ..Execution::default() });
    }
    let beyond = IN_USE.load(Relaxed) - before;
    let said = format!("once {once}, often {often}, worst {worst} bytes each; beyond {beyond} bytes");
    eprintln!("{said}");
    assert!(once <= 3 * KIB && often <= 18 * KIB && worst <= 39 * KIB && beyond <= 40 * KIB, "{said}");
}
