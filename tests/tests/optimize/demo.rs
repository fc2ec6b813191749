//! The demo: its report has every field, and a Ctrl-C at any moment leaves nothing.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{ended, said, signal};

use crate::workspace::Workspace;

/// A machine may be busy with other tests until a demo has come to its third phase.
const MOMENT_LIMIT: Duration = Duration::from_secs(150);

/// Each list's entries have exactly these fields or more.
const FIELDS: [(&str, &str); 12] = [
    ("", "schema_version environment targets phases slow_queries indexes findings prometheus verdict"),
    ("/environment", "poolwright postgres cores scale seed quick"),
    ("/targets", "p95_ms qps exhaustion_events memory_ratio"),
    (
        "/phases",
        "name pool runs p50_ms p95_ms p99_ms errors exhaustion_events sustained_ops sustained_qps connections \
         idle_memory_bytes",
    ),
    (
        "/phases/0/runs",
        "offered_ops duration_s samples qps p50_ms p95_ms p99_ms query_p95_ms acquire_wait_p95_ms saturated \
         lateness_p99_ms errors exhaustion_events exhaustion_seconds",
    ),
    ("/phases/0/pool", "max min idle_timeout_ms query_timeout_ms"),
    ("/phases/0/connections", "active_max idle_max waiting_max created"),
    ("/slow_queries", "fingerprint query phase calls p95_ms total_ms findings"),
    (
        "/indexes",
        "name sql table columns reason plan_before plan_after cost_before cost_after size_bytes build_ms valid kept",
    ),
    ("/findings", "id kind fingerprint evidence sql_after same_rows accepted applied"),
    ("/verdict", "passed checks"),
    ("/verdict/checks", "name unit target before after measured_at passed"),
];

fn assert_fields(report: &Value) {
    for (place, fields) in FIELDS {
        let value = report.pointer(place).unwrap_or_else(|| panic!("{place} is missing"));
        let objects = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        assert!(!objects.is_empty(), "{place} is empty");
        for object in objects {
            for field in fields.split_whitespace() {
                assert!(object.get(field).is_some(), "{place}: no {field} in {object}");
            }
        }
    }
}

/// What the terms say of phases and runs.
fn assert_phases(report: &Value) {
    let phases = report["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["baseline", "pool", "indexes", "queries", "verify"]);
    for phase in phases {
        let runs = phase["runs"].as_array().unwrap();
        let rate = |run: &Value| run["offered_ops"].as_f64().unwrap();
        assert_eq!(
            (rate(&runs[0]), rate(runs.last().unwrap())),
            (20.0, 50.0),
            "the same rates in every phase"
        );
        for field in ["p50_ms", "p95_ms", "p99_ms", "errors", "exhaustion_events"] {
            assert_eq!(phase[field], runs.last().unwrap()[field], "{field} is that of the target's rate");
        }
        for run in runs {
            let few = run["samples"].as_u64().unwrap() < 1_000;
            assert!(!few || run["p99_ms"].is_null(), "no P99 from fewer than 1,000 samples: {run}");
        }
        let ends = matches!(phase["name"].as_str(), Some("baseline" | "verify"));
        assert_eq!(phase["idle_memory_bytes"].is_null(), !ends, "{phase}");
        assert!(ends || phase["sustained_ops"].is_null(), "{phase}");
    }
    assert_eq!((&phases[0]["pool"]["max"], &phases[0]["pool"]["min"]), (&20.into(), &20.into()));
}

/// The dashboard's main panels, as Prometheus answered before and after.
fn assert_panels(report: &Value) {
    let panels = report["prometheus"].as_array().unwrap();
    let panel = |title: &str| {
        let found = panels.iter().find(|panel| panel["panel"] == title);
        found.unwrap_or_else(|| panic!("no panel {title} in {panels:?}"))
    };
    for panel in panels {
        let expr = panel["expr"].as_str().unwrap();
        assert!(!expr.is_empty() && !expr.contains('$'), "{panel}");
    }
    for title in ["Query P95", "Queries per second", "Error share", "Memory of Poolwright"] {
        let panel = panel(title);
        assert!(panel["before"].is_number() && panel["after"].is_number(), "{panel}");
    }
    let max = panel("Server connections by state: max");
    assert_eq!(max["before"].as_f64(), Some(20.0), "the team's pool");
    assert_eq!(max["after"].as_f64(), report["phases"][4]["pool"]["max"].as_f64(), "the pool advised");
    let slowest =
        |panel: &&Value| panel["panel"].as_str().unwrap().starts_with("Five slowest fingerprints: ");
    assert!(panels.iter().filter(slowest).count() >= 5);
}

#[test]
fn a_quick_demo_runs_all_five_phases_and_says_that_it_is_no_proof() {
    let workspace = Workspace::new();
    let output = workspace.command(&["demo", "--quick", "--json"]).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let written = std::fs::read(workspace.out().join("report.json")).unwrap();
    assert_eq!(report, serde_json::from_slice::<Value>(&written).unwrap());
    assert_eq!(report["environment"]["quick"], true);
    assert_eq!(output.status.success(), report["verdict"]["passed"].as_bool().unwrap());
    assert_fields(&report);
    assert_phases(&report);
    assert_panels(&report);
    let kept: Vec<&Value> =
        report["indexes"].as_array().unwrap().iter().filter(|index| index["kept"] == true).collect();
    assert!(kept.len() >= 3, "{}", report["indexes"]);
    assert!(kept.iter().all(|index| index["valid"] == true && index["size_bytes"].as_u64() > Some(0)));
    let applied = report["findings"].as_array().unwrap().iter().filter(|finding| finding["applied"] == true);
    assert!(applied.count() >= 4, "{}", report["findings"]);
    let page = std::fs::read_to_string(workspace.out().join("report.html")).unwrap();
    assert!(page.contains("not a proof"));
    assert!(page.contains("<summary>Query P95</summary><svg"), "the panels are drawn");
    let migrations = std::fs::read_dir(workspace.out().join("migrations")).unwrap().count();
    assert_eq!(migrations, 2 * kept.len(), "up and down for each index that was kept");
    workspace.assert_clean();
}

/// Runs a quick demo, sends the signal once `reached`, and sees to it that nothing is left.
fn stopped(sent: i32, code: i32, reached: impl Fn(&Workspace) -> bool) {
    let workspace = Workspace::new();
    let mut child = workspace.command(&["demo", "--quick"]).spawn().unwrap();
    let began = Instant::now();
    while !reached(&workspace) {
        assert!(child.try_wait().unwrap().is_none(), "the demo ended before the moment for the signal");
        assert!(began.elapsed() < MOMENT_LIMIT, "the moment for the signal does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(child.id(), sent);
    let began = Instant::now();
    let status = ended(&mut child, Duration::from_secs(30));
    assert_eq!(status.code(), Some(code), "after {:?}", began.elapsed());
    workspace.assert_clean();
    assert!(!workspace.out().exists(), "no half report");
}

fn there(workspace: &Workspace, prefix: &str) -> bool {
    workspace.left().iter().any(|name| name.starts_with(prefix))
}

#[test]
fn ctrl_c_while_postgresql_is_made_leaves_nothing() {
    stopped(libc::SIGINT, 130, |workspace| there(workspace, "poolwright-pg-"));
}

#[test]
fn ctrl_c_under_the_load_leaves_nothing() {
    stopped(libc::SIGINT, 130, |workspace| {
        there(workspace, "poolwright-run-")
            && workspace.processes().iter().filter(|line| line.contains(" serve ")).count() == 1
    });
}

#[test]
fn ctrl_c_while_indexes_are_built_leaves_nothing() {
    stopped(libc::SIGINT, 130, |workspace| workspace.out().join("migrations").is_dir());
}

#[test]
fn a_termination_is_as_orderly() {
    stopped(libc::SIGTERM, 143, |workspace| there(workspace, "poolwright-run-"));
}

#[test]
fn a_report_that_has_no_place_is_said_before_anything_starts() {
    let workspace = Workspace::new();
    std::fs::write(workspace.out(), "a file, not a folder").unwrap();
    let output = workspace.command(&["demo", "--quick"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("cannot write to"), "{}", said(&output));
    workspace.assert_clean();
}
