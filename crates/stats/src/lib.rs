//! Histograms and counters per pool and fingerprint.
//!
//! Each worker writes its own [`Shard`] with relaxed atomics: no lock and no shared cache line per query.
//! The [`Registry`] reads all shards and merges them into a [`Snapshot`], off the data path.

mod cells;
pub mod histogram;
mod registry;
mod ring;
pub mod snapshot;
mod trail;

pub use cells::{Execution, Outcome};
pub use histogram::{Histogram, LIMIT_US};
pub use registry::{Config, FingerprintFacts, Registry, Shard};
pub use snapshot::*;
pub use trail::Trail;
