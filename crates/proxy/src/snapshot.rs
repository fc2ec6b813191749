//! All counters at one moment: the workers', those of login, and what the process uses.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::login::Login;
use crate::settings::micros;

/// Events kept for metrics and charts; the oldest go first.
const EVENTS_MAX: usize = 256;

impl Login {
    /// All counters now. Takes a few milliseconds; not for the data path.
    pub(crate) fn snapshot(&self) -> stats::Snapshot {
        let mut snapshot = self.workers.snapshot();
        snapshot.taken_unix_us = unix_us();
        snapshot.uptime_us = micros(self.started.elapsed());
        snapshot.events.clone_from(&self.events.lock());
        snapshot.client_connections = u64::from(self.places.taken());
        snapshot.client_max = u64::from(self.places.max());
        snapshot.client_rejections.clone_from(&self.rejections.lock());
        snapshot.process = process();
        snapshot.server = self.server_facts();
        snapshot
    }

    /// Notes an event for metrics and charts.
    pub(crate) fn event(&self, kind: &str, id: &str) {
        let mut events = self.events.lock();
        if events.len() == EVENTS_MAX {
            events.remove(0);
        }
        events.push(stats::Event { kind: kind.to_owned(), id: id.to_owned(), unix_us: unix_us() });
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

/// What this process uses, from /proc; zeros where that is not there.
fn process() -> stats::Process {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let kilobytes = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes * 1024)
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    stats::Process {
        rss_bytes: kilobytes(&read("status"), "VmRSS:"),
        pss_bytes: kilobytes(&read("smaps_rollup"), "Pss:"),
        // utime and stime (proc(5) fields 14 and 15) in ticks of 10 ms.
        cpu_us: (ticks(11) + ticks(12)) * 10_000,
        fds: std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64),
    }
}
