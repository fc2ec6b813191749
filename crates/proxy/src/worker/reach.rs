//! Whether a pool's PostgreSQL can be reached, and how often that is tried.
//!
//! ```text
//!            admit                        failed
//!   slot ───────────▶ reachable ─────────────────────▶ unreachable: slots are held,
//!                         ▲                            one at a time is tried (`due`)
//!                         └──────── opened ◀───────────┘
//! ```
//! While somebody waits, the tries are at most a second apart, else five.

use std::collections::VecDeque;

use pool::ServerId;

use crate::handover::ConnectFault;

const FIRST_DELAY_US: u64 = 100_000;
/// Longest pause between tries while somebody waits.
const WANTED_DELAY_US: u64 = 1_000_000;
/// Longest pause between tries while nobody does.
const UNWANTED_DELAY_US: u64 = 5_000_000;

/// See the file's head.
#[derive(Default)]
pub(super) struct Reach {
    down: Option<Down>,
    held: VecDeque<ServerId>,
}

struct Down {
    fault: ConnectFault,
    since_us: u64,
    failed_us: u64,
    failures: u32,
    trying: Option<ServerId>,
}

impl Reach {
    /// True: open this slot now. False: it is kept for later.
    pub(super) fn admit(&mut self, slot: ServerId) -> bool {
        if self.down.is_some() {
            self.held.push_back(slot);
        }
        self.down.is_none()
    }

    /// The slot to try now, if it is time for one.
    pub(super) fn due(&mut self, now_us: u64, somebody_waits: bool) -> Option<ServerId> {
        let down = self.down.as_mut()?;
        let longest_us = if somebody_waits { WANTED_DELAY_US } else { UNWANTED_DELAY_US };
        let delay_us = (FIRST_DELAY_US << down.failures.saturating_sub(1).min(6)).min(longest_us);
        if down.trying.is_some() || now_us < down.failed_us + delay_us {
            return None;
        }
        down.trying = self.held.pop_front();
        down.trying
    }

    /// A slot could not be opened. True when that is news: the first failure, or for another reason.
    pub(super) fn failed(&mut self, slot: ServerId, fault: ConnectFault, now_us: u64) -> bool {
        let Some(down) = self.down.as_mut() else {
            let (since_us, failed_us) = (now_us, now_us);
            self.down = Some(Down { fault, since_us, failed_us, failures: 1, trying: None });
            return true;
        };
        // Those already under way when the first one failed do not lengthen the pause.
        if down.trying == Some(slot) {
            down.trying = None;
            down.failures += 1;
            down.failed_us = now_us;
        }
        std::mem::replace(&mut down.fault, fault.clone()) != fault
    }

    /// A slot was opened: how long PostgreSQL had been out of reach, in µs, and the slots to open now.
    pub(super) fn opened(&mut self, now_us: u64) -> Option<(u64, VecDeque<ServerId>)> {
        let down = self.down.take()?;
        Some((now_us.saturating_sub(down.since_us), std::mem::take(&mut self.held)))
    }

    /// Why it is out of reach, if it is.
    pub(super) fn fault(&self) -> Option<&ConnectFault> {
        self.down.as_ref().map(|down| &down.fault)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused() -> ConnectFault {
        ConnectFault::new(b"08001", "connection refused")
    }

    #[test]
    fn one_slot_at_a_time_is_tried_at_growing_pauses() {
        let mut reach = Reach::default();
        assert!(reach.admit(ServerId(0)));
        assert!(reach.failed(ServerId(0), refused(), 0));
        assert!(!reach.admit(ServerId(1)) && !reach.admit(ServerId(2)));
        let (mut now_us, mut pauses) = (0, Vec::new());
        for _ in 0..7 {
            let failed_us = now_us;
            let slot = loop {
                now_us += 50_000;
                if let Some(slot) = reach.due(now_us, true) {
                    break slot;
                }
            };
            assert_eq!(reach.due(now_us + 60_000_000, true), None, "one at a time");
            pauses.push((now_us - failed_us) / 1000);
            assert!(!reach.failed(slot, refused(), now_us), "no news");
            reach.admit(slot);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(reach.due(now_us + 1_000_000, false), None, "without waiters the pause is longer");
        assert!(
            reach.failed(ServerId(9), ConnectFault::new(b"57P03", "starting up"), now_us),
            "another reason"
        );
        let (out_of_reach_us, held) = reach.opened(now_us).unwrap();
        assert_eq!((out_of_reach_us, held.len()), (now_us, 2));
        assert!(reach.admit(ServerId(1)) && reach.fault().is_none());
    }
}
