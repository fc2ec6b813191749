#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use stats::{Event, FingerprintSnapshot, Histogram, PoolSnapshot, RewriteState, ServerFacts, Snapshot};

use super::{Source, metrics, serve_source};

fn histogram(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

/// The first page of a fresh process.
fn render(snapshot: Snapshot) -> String {
    metrics::render(&snapshot, &mut metrics::Memory::default())
}

fn sample(fingerprints: usize) -> Snapshot {
    let pool = PoolSnapshot {
        name: "b\"o\\t\n".into(),
        max: 15,
        query: histogram(&[90, 260, 12_000_000]),
        ..PoolSnapshot::default()
    };
    let fingerprints = (0..fingerprints).map(|n| FingerprintSnapshot {
        pool: "bot".into(),
        id: format!("{n:016x}"),
        query: "SELECT \"x\" FROM t ".repeat(20),
        calls: 1,
        rows: 2,
        server_time: histogram(&[n as u64 + 1]),
        ..FingerprintSnapshot::default()
    });
    Snapshot {
        pools: vec![pool],
        fingerprints: fingerprints.collect(),
        server: Some(ServerFacts { max_connections: 100, reserved_connections: 3 }),
        rewrites: vec![RewriteState { state: "active".into(), ..RewriteState::default() }],
        events: vec![Event { kind: "phase".into(), id: "baseline".into(), unix_us: 5_000_000 }],
        ..Snapshot::default()
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = render(sample(3));
    let Ok(mut child) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return; // promtool is not installed; script/bootstrap installs it
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}{}\n{text}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn labels_are_escaped_and_buckets_cumulative() {
    let text = render(sample(0));
    assert!(text.contains(r#"poolwright_pool_max_connections{pool="b\"o\\t\n"} 15"#), "{text}");
    assert!(text.contains(r#"poolwright_query_seconds_bucket{pool="b\"o\\t\n",le="0.00025"} 1"#));
    assert!(text.contains(r#"poolwright_query_seconds_bucket{pool="b\"o\\t\n",le="0.0005"} 2"#));
    assert!(text.contains(r#"poolwright_query_seconds_bucket{pool="b\"o\\t\n",le="+Inf"} 3"#));
    assert!(text.contains(r#"poolwright_event_timestamp_seconds{kind="phase",id="baseline"} 5"#));
}

#[test]
fn series_are_bounded_and_sums_exact() {
    let text = render(sample(5_000));
    let rows: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("poolwright_fingerprint_rows_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(rows.len(), 50 + 2, "50 of their own, and what is left of two pools");
    assert!((rows.iter().sum::<f64>() - 10_000.0).abs() < 0.5);
}

/// Names of our metrics in a text, without the suffixes of histograms.
fn names(text: &str) -> std::collections::BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("poolwright_") || word.starts_with("process_"))
        .map(|word| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn dashboard_and_rules_use_metrics_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let known = names(&render(sample(1)));
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("grafana/poolwright.json")).unwrap())
            .unwrap();
    let mut used = String::new();
    let mut open = vec![&dashboard];
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                used.extend(
                    fields.get("expr").and_then(|expr| expr.as_str()).map(|expr| format!("{expr}\n")),
                );
                open.extend(fields.values());
            }
            serde_json::Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    for line in std::fs::read_to_string(root.join("prometheus/rules/poolwright.yml")).unwrap().lines() {
        // Names with colons are recorded by the rules themselves.
        used.extend(
            line.split_whitespace().filter(|word| !word.contains(':')).map(|word| format!("{word}\n")),
        );
    }
    let unknown: Vec<String> = names(&used).into_iter().filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[derive(Default)]
struct Fixed(Mutex<Vec<(String, String)>>);

impl Source for Fixed {
    fn snapshot(&self) -> Snapshot {
        sample(2)
    }

    fn event(&self, kind: &str, id: &str) {
        self.0.lock().unwrap().push((kind.to_owned(), id.to_owned()));
    }
}

#[tokio::test]
async fn answers_over_http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let source = Arc::new(Fixed::default());
    let server = tokio::spawn(serve_source(listener, source.clone()));
    tokio::task::spawn_blocking(move || {
        let get = |path: &str| {
            ureq::get(format!("{base}{path}")).call().unwrap().body_mut().read_to_string().unwrap()
        };
        assert_eq!(get("/healthz"), "ok\n");
        assert!(get("/metrics").contains("poolwright_build_info"));
        let snapshot: Snapshot = serde_json::from_str(&get("/snapshot.json")).unwrap();
        assert_eq!(snapshot, sample(2));
        let post = |body: &str| ureq::post(format!("{base}/events")).send(body);
        assert_eq!(post(r#"{"kind":"phase","id":"pool"}"#).unwrap().status(), 204);
        assert!(post("nonsense").is_err());
        assert!(post(r#"{"kind":"","id":"pool"}"#).is_err());
    })
    .await
    .unwrap();
    server.abort();
    assert_eq!(*source.0.lock().unwrap(), [("phase".to_owned(), "pool".to_owned())]);
}
