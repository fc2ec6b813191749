//! The dashboard, the rules and the metrics reference against a real Prometheus that scrapes a real Poolwright, under
//! a load with transactions, errors, exhaustion, cancels, rejected clients and a restart of PostgreSQL.
#![allow(clippy::unwrap_used)]

mod board;
mod flood;
mod load;
mod page;
mod reference;
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use lab::prometheus::{self, Prometheus, Series, fill_in};
use tests::{Options, Site, said};

const LIMITS: &str =
    "max = 4\nmin = 1\nidle_timeout = \"2s\"\nacquire_timeout = \"1s\"\nquery_timeout = \"2s\"";
/// Seconds for `$__rate_interval`: at least four scrapes.
const RANGE_S: u64 = 10;

fn unix_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The whole run and what is left of it.
struct Run {
    prometheus: Prometheus,
    page: String,
    began_s: f64,
    ended_s: f64,
    faults: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_rule_fills_on_a_real_prometheus() {
    let mut site = Site::open(&Options { limits: LIMITS, tables: load::REWRITE, ..Options::default() });
    let rules = std::fs::read_to_string(board::root().join("prometheus/rules/poolwright.yml")).unwrap();
    let target = format!("127.0.0.1:{}", site.metrics_port());
    let scrape = Duration::from_secs(1);
    let options = prometheus::Options { target: &target, rules: &rules, scrape, outlives: false };
    let prometheus = tokio::task::block_in_place(|| Prometheus::start(&options)).unwrap();
    let began_s = unix_s();
    load::run(&mut site, &prometheus).await;
    load::scraped_after(&prometheus, unix_s()).await;
    let page = site.http("/metrics");
    let mut run = Run { prometheus, page, began_s, ended_s: unix_s(), faults: Vec::new() };
    tokio::task::block_in_place(|| {
        run.names_exist();
        run.panels_fill();
        run.rules_hold();
        run.annotations_and_variables_answer();
        run.the_page_is_sound();
        run.faults.extend(reference::differences(&page::read(&run.page)));
        run.snapshot_agrees(&site);
        run.faults.extend(truth::differences(&page::read(&run.page), &site));
    });
    assert!(run.faults.is_empty(), "{} faults:\n{}", run.faults.len(), run.faults.join("\n"));
}

/// What is worth seeing: a finite value other than zero.
fn filled(series: &[Series]) -> bool {
    series.iter().flat_map(|series| &series.points).any(|point| point.1.is_finite() && point.1 != 0.0)
}

/// Names of metrics in an expression or a rules file.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| ["poolwright_", "poolwright:", "process_"].iter().any(|own| word.starts_with(own)))
        .map(str::to_owned)
        .collect()
}

impl Run {
    fn over_time(&self, expr: &str) -> Result<Vec<Series>, String> {
        let answer = self.prometheus.query_range(expr, self.began_s, self.ended_s, 1);
        answer.map_err(|error| error.to_string())
    }

    fn names_exist(&mut self) {
        let known: BTreeSet<String> =
            self.prometheus.get("label/__name__/values", &[]).map_err(|error| error.to_string()).unwrap();
        let dashboard = board::dashboard().to_string();
        let rules = std::fs::read_to_string(board::root().join("prometheus/rules/poolwright.yml")).unwrap();
        let used = names(&dashboard).into_iter().chain(names(&rules));
        self.faults
            .extend(used.filter(|name| !known.contains(name)).map(|name| format!("unknown metric {name}")));
    }

    fn panels_fill(&mut self) {
        let allowed = board::allowed_empty();
        let questions = board::questions(&board::dashboard());
        assert!(questions.len() > 50);
        for question in questions {
            let range_s = if question.instant { (self.ended_s - self.began_s) as u64 } else { RANGE_S };
            let expr = fill_in(&question.expr, range_s);
            let answer = if question.instant {
                self.prometheus.query(&expr, self.ended_s).map_err(|error| error.to_string())
            } else {
                self.over_time(&expr)
            };
            match answer {
                Err(error) => self.faults.push(format!("panel {}: {error}", question.panel)),
                Ok(series) if filled(&series) => {
                    if allowed.contains(&question.panel) {
                        self.faults.push(format!("panel {} fills: take it off the list", question.panel));
                    }
                }
                Ok(_) if allowed.contains(&question.panel) => {}
                Ok(_) => self.faults.push(format!("panel {} stays empty: {expr}", question.panel)),
            }
        }
    }

    /// Recording rules have values; alerts are evaluated without an error.
    fn rules_hold(&mut self) {
        let groups: serde_json::Value = self.prometheus.get("rules", &[]).unwrap();
        let rules =
            groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        let (mut records, mut alerts) = (0, 0);
        for rule in rules {
            let name = board::text(&rule["name"]);
            if rule["health"] != "ok" {
                self.faults.push(format!("rule {name}: {} {}", rule["health"], rule["lastError"]));
            }
            if rule["type"] == "recording" {
                records += 1;
                if !self.over_time(&name).is_ok_and(|series| filled(&series)) {
                    self.faults.push(format!("rule {name} has no value"));
                }
            } else {
                alerts += 1;
            }
            if let Err(error) = self.over_time(&board::text(&rule["query"])) {
                self.faults.push(format!("rule {name}: {error}"));
            }
        }
        assert!(records >= 10 && alerts >= 10, "{records} records, {alerts} alerts");
    }

    fn annotations_and_variables_answer(&mut self) {
        let dashboard = board::dashboard();
        let mut asked = 0;
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            let Some(expr) = annotation["expr"].as_str() else { continue };
            asked += 1;
            // In milliseconds; Grafana uses the value as the time.
            let series = self.prometheus.query(&fill_in(expr, RANGE_S), self.ended_s).unwrap();
            let within = |point: &(f64, f64)| (self.began_s..=self.ended_s).contains(&(point.1 / 1000.0));
            if series.is_empty() || !series.iter().flat_map(|series| &series.points).all(within) {
                self.faults.push(format!("annotation {} says {series:?}", annotation["name"]));
            }
        }
        assert_eq!(asked, 2, "phases and changes");
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(definition) = variable["definition"].as_str() else { continue };
            let inside =
                definition.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')')).unwrap();
            let (metric, label) = inside.rsplit_once(", ").unwrap();
            let expr = fill_in(&format!("count by ({label}) ({metric})"), RANGE_S);
            let series = self.prometheus.query(&expr, self.ended_s).unwrap();
            if !series.iter().any(|series| series.labels.get(label).is_some_and(|value| !value.is_empty())) {
                self.faults.push(format!("variable {} has no value", variable["name"]));
            }
        }
    }

    fn the_page_is_sound(&mut self) {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.page.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() || !said(&output).is_empty() {
            self.faults.push(format!("promtool: {}", said(&output)));
        }
        let families = page::read(&self.page);
        let bounds = families["poolwright_query_seconds"].values("le");
        if bounds.len() != 18 || !bounds.contains("0.075") {
            self.faults.push(format!("bounds of poolwright_query_seconds: {bounds:?}"));
        }
        let described = families["poolwright_fingerprint_info"].values("fingerprint");
        let exported = families["poolwright_fingerprint_query_seconds"].values("fingerprint");
        if described != exported || exported.len() < 5 {
            self.faults.push(format!("exported {exported:?}, described {described:?}"));
        }
        for (name, family) in &families {
            if family.samples.is_empty() {
                self.faults.push(format!("{name} has no sample"));
            }
        }
        self.faults.extend(zeros_missing(&families));
    }

    /// Nothing runs any more: gauges are back, and the page and the snapshot tell the same.
    fn snapshot_agrees(&mut self, site: &Site) {
        let families = page::read(&self.page);
        let snapshot: serde_json::Value =
            serde_json::from_str(&site.http("/snapshot.json?checkouts=0")).unwrap();
        let pool = &snapshot["pools"][0];
        let total = |name: &str| families[name].samples.iter().map(|sample| sample.2).sum::<f64>();
        for (name, field) in [
            ("poolwright_queries_total", "queries"),
            ("poolwright_pool_exhausted_total", "exhausted_events"),
            ("poolwright_server_connections_created_total", "created"),
        ] {
            if Some(total(name)) != pool[field].as_f64() {
                self.faults.push(format!(
                    "{name} is {}, the snapshot's {field} {}",
                    total(name),
                    pool[field]
                ));
            }
        }
        let rows: f64 =
            snapshot["fingerprints"].as_array().unwrap().iter().filter_map(|f| f["rows"].as_f64()).sum();
        if (total("poolwright_fingerprint_rows_total") - rows).abs() > 0.5 {
            self.faults.push("rows by fingerprint do not add up".to_owned());
        }
    }
}

/// Counters must be there before they first rise: else Prometheus does not see that rise.
fn zeros_missing(families: &BTreeMap<String, page::Family>) -> Vec<String> {
    let wanted: [(&str, &str, &[&str]); 9] = [
        ("poolwright_acquires_total", "outcome", &["immediate", "waited", "timeout", "cancelled"]),
        (
            "poolwright_server_connections_closed_total",
            "reason",
            &["idle", "lifetime", "error", "reset_failed", "admin", "abandoned"],
        ),
        ("poolwright_server_connect_failures_total", "sqlstate", &["53300", "28P01", "57P03"]),
        ("poolwright_transactions_total", "outcome", &["commit", "rollback", "abandoned"]),
        ("poolwright_query_errors_total", "sqlstate_class", &["22", "23", "40", "42", "53", "57"]),
        ("poolwright_client_rejections_total", "reason", &["password", "database", "limit"]),
        ("poolwright_server_connections", "state", &["active", "idle", "idle_in_transaction", "connecting"]),
        ("poolwright_client_connections", "state", &["active", "waiting", "idle", "idle_in_transaction"]),
        ("poolwright_pinned_connections", "reason", &["set", "temp_table", "advisory_lock", "listen"]),
    ];
    let mut missing = Vec::new();
    for (name, label, values) in wanted {
        let there = families.get(name).map(|family| family.values(label)).unwrap_or_default();
        missing.extend(
            values
                .iter()
                .filter(|v| !there.contains(*v))
                .map(|v| format!("{name}{{{label}=\"{v}\"}} is not there")),
        );
    }
    missing
}
