//! PostgreSQL protocol 3 frames: split, read heads, rewrite heads, craft replies.
//!
//! ```text
//!  +------+----------------+------------------+
//!  | kind | length (4, BE) | body (length-4)  |
//!  +------+----------------+------------------+
//! ```
//! Nothing here owns a socket or a buffer: readers borrow, writers append to the caller's `Vec`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod craft;
pub mod read;

pub use read::{Head, Malformed, cstr, error_field, head};

/// Bytes of a frame's head: kind and length.
pub const HEAD_BYTES: usize = 5;

/// Longest frame accepted, head included, in bytes (PostgreSQL's own limit is 1 GiB - 1).
pub const FRAME_BYTES_MAX: usize = 0x4000_0000;
