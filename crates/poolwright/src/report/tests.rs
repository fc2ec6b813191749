#![allow(clippy::unwrap_used)]

use super::evidence::{Distribution, Evidence, LatencyPoint, PanelLine, PanelSeries};
use super::model::*;

fn report() -> Report {
    let hostile = "SELECT '</script><img src=x>' FROM \"a&b\"";
    Report {
        schema_version: SCHEMA_VERSION,
        phases: vec![Phase {
            runs: vec![Run { saturated: true, p95_ms: Some(9.0), ..Run::default() }],
            ..Phase::default()
        }],
        slow_queries: vec![SlowQuery { query: hostile.into(), ..SlowQuery::default() }],
        verdict: Verdict {
            passed: false,
            checks: vec![Check { name: "P95 latency".into(), ..Check::default() }],
        },
        ..Report::default()
    }
}

#[test]
fn a_query_cannot_leave_its_place_in_the_page() {
    let page = super::html::render(&report(), &Evidence::default()).unwrap();
    assert!(!page.contains("<img src=x>"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(page.contains("1 of 1 targets missed: P95 latency"));
}

#[test]
fn the_page_needs_no_other_file() {
    let page = super::html::render(&report(), &Evidence::default()).unwrap();
    for outside in ["http://", "https://", "src=\"", "href="] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn panels_are_drawn_and_gaps_are_left_open() {
    let line = |name: &str, points: &[(f64, f64)]| PanelLine { name: name.into(), points: points.to_vec() };
    let panel = PanelSeries {
        panel: "Query P95".into(),
        unit: "s".into(),
        lines: vec![
            line("whole", &[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]),
            line("broken", &[(0.0, 1.0), (1.0, 2.0), (8.0, 3.0)]),
        ],
    };
    let evidence = Evidence { panels: vec![panel], ..Evidence::default() };
    let asked = Panel { panel: "Query P95".into(), unit: "s".into(), after: Some(0.25), ..Panel::default() };
    let report = Report { prometheus: vec![asked], ..report() };
    let page = super::html::render(&report, &evidence).unwrap();
    let drawn = &page[page.find("<summary>Query P95").unwrap()..];
    let drawn = &drawn[..drawn.find("</details>").unwrap()];
    assert_eq!(drawn.matches("<polyline class=\"s0\"").count(), 1);
    assert_eq!(drawn.matches("<polyline class=\"s1\"").count(), 2);
    assert!(drawn.contains("broken</span>"));
    assert!(page.contains("<td>0.25</td>"));
}

#[test]
fn the_embedded_data_reads_back() {
    let evidence = Evidence {
        latency: vec![LatencyPoint { at_s: 1.0, p95_ms: 3.0 }],
        distributions: vec![Distribution { phase: PhaseName::Verify, points: vec![(1.0, 0.5)] }],
        ..Evidence::default()
    };
    let page = super::html::render(&report(), &evidence).unwrap();
    let from = page.find("id=\"data\">").unwrap() + 10;
    let data = &page[from..page[from..].find("</script>").unwrap() + from];
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(serde_json::from_value::<Report>(data["report"].clone()).unwrap(), report());
    assert_eq!(serde_json::from_value::<Evidence>(data["evidence"].clone()).unwrap(), evidence);
}

#[test]
fn a_report_that_cannot_be_written_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = super::Folder::make(&file.join("out")).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn a_run_that_ends_early_leaves_nothing() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("new").join("out");
    let folder = super::Folder::make(&path).unwrap();
    assert!(path.is_dir());
    drop(folder);
    assert!(!above.path().join("new").exists());
    let mut folder = super::Folder::make(&path).unwrap();
    folder.write(&report(), &Evidence::default()).unwrap();
    drop(folder);
    let mut names: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["report.html", "report.json"]);
}
