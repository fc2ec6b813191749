//! The newest checkouts of one pool on one worker.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::CheckoutRecord;
use crate::cells::Lazy;

const CHUNK: usize = 1024;
const CHUNKS: usize = 32;

/// A ring of records; its memory grows with use, 16 bytes a record, to 512 KB.
#[derive(Debug)]
pub(crate) struct Ring {
    chunks: [Lazy<Box<[Record]>>; CHUNKS],
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Record {
    arrived_us: AtomicU64,
    waited_us: AtomicU32,
    held_us: AtomicU32,
}

impl Default for Ring {
    fn default() -> Self {
        Self { chunks: [const { Lazy::new() }; CHUNKS], written: AtomicU64::new(0) }
    }
}

impl Ring {
    /// Single writer. Waits and holds over 71 minutes count as 71 minutes.
    pub fn push(&self, arrived_us: u64, waited_us: u64, held_us: u64) {
        let written = self.written.load(Relaxed);
        let at = written as usize % (CHUNK * CHUNKS);
        let chunk = self.chunks[at / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| Record::default()).collect::<Box<[_]>>());
        let record = &chunk[at % CHUNK];
        record.arrived_us.store(arrived_us, Relaxed);
        record.waited_us.store(u32::try_from(waited_us).unwrap_or(u32::MAX), Relaxed);
        record.held_us.store(u32::try_from(held_us).unwrap_or(u32::MAX), Relaxed);
        self.written.store(written + 1, std::sync::atomic::Ordering::Release);
    }

    /// Adds the records, oldest first, without those that the writer may have been at meanwhile.
    pub fn read(&self, records: &mut Vec<CheckoutRecord>) {
        let size = (CHUNK * CHUNKS) as u64;
        let end = self.written.load(std::sync::atomic::Ordering::Acquire);
        let start = end.saturating_sub(size);
        let first = records.len();
        for n in start..end {
            let at = (n % size) as usize;
            let Some(chunk) = self.chunks[at / CHUNK].get() else { continue };
            let record = &chunk[at % CHUNK];
            records.push(CheckoutRecord {
                arrived_us: record.arrived_us.load(Relaxed),
                waited_us: u64::from(record.waited_us.load(Relaxed)),
                held_us: u64::from(record.held_us.load(Relaxed)),
            });
        }
        let now = self.written.load(std::sync::atomic::Ordering::Acquire);
        let overwritten = (now + 1).saturating_sub(size).saturating_sub(start).min(end - start);
        records.drain(first..first + overwritten as usize);
    }
}
