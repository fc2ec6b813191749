#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use stats::{FingerprintSnapshot, Histogram, PoolSnapshot, Snapshot};

use super::*;
use crate::http::{self, Source};

#[test]
fn every_main_panel_is_in_the_dashboard() {
    let titles: Vec<String> = main_panels().into_iter().map(|panel| panel.title).collect();
    assert_eq!(titles, MAIN);
}

#[test]
fn no_variable_is_left() {
    for panel in main_panels() {
        for target in panel.targets {
            let expr = fill_in(&target.expr, 20);
            assert!(!expr.contains('$') && !expr.contains('\n'), "{expr}");
        }
    }
}

#[test]
fn legends_are_filled_in() {
    let labels = [("state", "idle"), ("job", "poolwright"), ("fingerprint", "00ff")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut series = Series { labels, points: Vec::new() };
    assert_eq!(legend("{{state}} now", &series), "idle now");
    assert_eq!(legend("", &series), "00ff idle");
    series.labels.insert("query".to_owned(), "SELECT $1".to_owned());
    assert_eq!(legend("", &series), "SELECT $1");
}

#[test]
fn zeros_and_far_limits_are_not_drawn() {
    let line = |name: &str, values: [f64; 2]| PanelLine {
        name: name.to_owned(),
        points: vec![(0.0, values[0]), (1.0, values[1])],
    };
    let mut lines = vec![
        line("active", [0.0, 9.0]),
        line("closing", [0.0, 0.0]),
        line("max", [15.0, 15.0]),
        line("client limit", [1000.0, 1000.0]),
    ];
    worth_drawing(&mut lines);
    assert_eq!(lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["active", "max"]);
    let mut quiet = vec![line("errors", [0.0, 0.0])];
    worth_drawing(&mut quiet);
    assert_eq!(quiet.len(), 1);
}

/// A pooler that answers ever faster: each second has ten queries; the time of a query is set from outside.
struct Growing {
    began: Instant,
    query_us: AtomicU64,
    counted: std::sync::Mutex<Histogram>,
}

impl Source for Growing {
    fn snapshot(&self) -> Snapshot {
        let mut histogram = self.counted.lock().unwrap();
        let due = self.began.elapsed().as_millis() as u64 / 100;
        while histogram.count() < due {
            histogram.record(self.query_us.load(Ordering::Relaxed));
        }
        let pool = PoolSnapshot {
            name: "shop".into(),
            max: 7,
            servers: [("active".to_owned(), 3)].into(),
            queries: histogram.count(),
            query: histogram.clone(),
            ..PoolSnapshot::default()
        };
        let fingerprint = FingerprintSnapshot {
            pool: "shop".into(),
            id: "00000000000000ab".into(),
            query: "SELECT price FROM goods WHERE id = $1".into(),
            calls: histogram.count(),
            server_time: histogram.clone(),
            ..FingerprintSnapshot::default()
        };
        Snapshot { pools: vec![pool], fingerprints: vec![fingerprint], ..Snapshot::default() }
    }

    fn event(&self, _kind: &str, _id: &str) {}
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Waits until Prometheus has a sample that was taken at or after `at_s`.
fn scraped(prometheus: &Prometheus, at_s: f64) {
    let began = Instant::now();
    let newest = || {
        let series = prometheus.query("max(timestamp(poolwright_queries_total))", unix_s()).unwrap();
        series.first().map_or(0.0, |series| series.points[0].1)
    };
    while newest() < at_s {
        assert!(began.elapsed() < Duration::from_secs(30), "Prometheus does not scrape");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn panel<'a>(answers: &'a Answers, title: &str) -> &'a Panel {
    answers.panels.iter().find(|panel| panel.panel == title).unwrap_or_else(|| panic!("no panel {title}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_tells_before_from_after() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = listener.local_addr().unwrap().to_string();
    let source = Arc::new(Growing {
        began: Instant::now(),
        query_us: AtomicU64::new(400_000),
        counted: std::sync::Mutex::default(),
    });
    let server = tokio::spawn(http::serve_source(listener, source.clone()));
    let asked = tokio::task::spawn_blocking(move || {
        let prometheus = crate::optimize::prometheus::start(&metrics, Duration::from_secs(1), false).unwrap();
        assert!(prometheus.version().unwrap().contains('.'));
        let wrong = prometheus.query("sum(", unix_s()).unwrap_err().to_string();
        assert!(wrong.contains("parse error"), "{wrong}");
        let began_s = unix_s();
        scraped(&prometheus, began_s + 7.0);
        let middle_s = unix_s();
        source.query_us.store(2_000, Ordering::Relaxed);
        scraped(&prometheus, middle_s + 7.0);
        let ended_s = unix_s();
        let windows = [
            Window { phase: PhaseName::Baseline, from_s: began_s, to_s: middle_s },
            Window { phase: PhaseName::Verify, from_s: middle_s + 2.0, to_s: ended_s },
        ];
        let answers = ask(&prometheus, began_s, ended_s, &windows).unwrap();
        let pid = prometheus.pid();
        drop(prometheus);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "Prometheus is gone");
        answers
    });
    let answers = asked.await.unwrap();
    server.abort();
    let p95 = panel(&answers, "Query P95");
    assert!(p95.before.is_some_and(|s| (0.25..=0.5).contains(&s)), "{p95:?}");
    assert!(p95.after.is_some_and(|s| (0.001..=0.0025).contains(&s)), "{p95:?}");
    let active = panel(&answers, "Server connections by state: active");
    assert_eq!((active.before, active.after), (Some(3.0), Some(3.0)));
    let slowest = panel(&answers, "Five slowest fingerprints: SELECT price FROM goods WHERE id = $1");
    assert!(slowest.before > slowest.after, "{slowest:?}");
    assert!(answers.charts.iter().all(|chart| chart.lines.len() <= LINES_MAX));
    let drawn = answers.charts.iter().find(|chart| chart.panel == "Query P95").unwrap();
    assert!(drawn.lines[0].points.len() >= 5, "{drawn:?}");
    assert_eq!(panel(&answers, "Acquire wait P95").before, None, "nothing was recorded, nothing is said");
}
