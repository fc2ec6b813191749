//! What the page says, against those who know: PostgreSQL itself and the kernel.

use std::collections::BTreeMap;

use tests::Site;

use crate::page::Family;

/// Figures that differ. Nothing runs any more, so they must agree.
pub fn differences(families: &BTreeMap<String, Family>, site: &Site) -> Vec<String> {
    let value = |name: &str| families[name].samples.iter().map(|sample| sample.2).sum::<f64>();
    let connections = &families["poolwright_server_connections"];
    let settings = "SELECT current_setting('max_connections')";
    let reserved = "SELECT current_setting('superuser_reserved_connections')::int \
        + coalesce(current_setting('reserved_connections', true)::int, 0)";
    // Its own clients, but for the one that asks.
    let backends = "SELECT count(*) FROM pg_stat_activity \
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let mut faults = Vec::new();
    for (what, said, known) in [
        ("server connections", connections.sum_where("state", "idle"), ask(site, backends)),
        ("max_connections", value("poolwright_postgres_max_connections"), ask(site, settings)),
        ("reserved connections", value("poolwright_postgres_reserved_connections"), ask(site, reserved)),
    ] {
        if said != known {
            faults.push(format!("{what}: the page says {said}, PostgreSQL {known}"));
        }
    }
    let resident = value("process_resident_memory_bytes");
    let known = resident_bytes(site.pid());
    if !(0.8..=1.25).contains(&(resident / known)) {
        faults.push(format!("resident memory: the page says {resident}, the kernel {known}"));
    }
    faults
}

/// One number from PostgreSQL, past the pooler.
fn ask(site: &Site, sql: &str) -> f64 {
    let output =
        site.client("psql").args(["-XAt", &site.postgres.url("postgres"), "-c", sql]).output().unwrap();
    tests::said(&output).trim().parse().unwrap_or(f64::NAN)
}

fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    kilobytes * 1024.0
}
