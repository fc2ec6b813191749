//! The dashboard's file, read, and what must hold of it without a server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A question the dashboard asks.
#[derive(Debug)]
pub struct Question {
    /// Title of its panel.
    pub panel: String,
    /// The expression as it stands in the file.
    pub expr: String,
    /// It is asked for the present only.
    pub instant: bool,
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `grafana/poolwright.json`.
pub fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("grafana/poolwright.json")).unwrap()).unwrap()
}

/// Panels that may stay at zero, by `grafana/panels-allowed-empty.txt`.
pub fn allowed_empty() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("grafana/panels-allowed-empty.txt")).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// All panels, those in rows included.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        all.push(panel);
        all.extend(panel["panels"].as_array().into_iter().flatten());
    }
    all
}

/// Every panel's questions.
pub fn questions(dashboard: &Value) -> Vec<Question> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push(Question {
                panel: text(&panel["title"]),
                expr: text(&target["expr"]),
                instant: target["instant"].as_bool().unwrap_or(false),
            });
        }
    }
    all
}

/// A string of the file.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn is_row(panel: &Value) -> bool {
    panel["type"] == "row"
}

#[test]
fn ids_are_unique_and_the_dashboard_has_a_name() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "poolwright");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    assert!(dashboard["id"].is_null(), "an id belongs to one server");
    assert!(dashboard.get("__inputs").is_none(), "provisioning does not fill inputs in");
    let panels = panels(&dashboard);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let titles: BTreeSet<String> = panels.iter().map(|panel| text(&panel["title"])).collect();
    assert_eq!(titles.len(), panels.len(), "titles tell panels apart");
}

/// Import and provisioning both work when every source is the variable.
#[test]
fn every_source_is_the_variable() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["name"], "datasource");
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
    let mut open = vec![&dashboard];
    let mut sources = 0;
    while let Some(value) = open.pop() {
        if let Some(source) = value.get("datasource").filter(|source| source.is_object()) {
            let own = source["type"] == "grafana";
            assert!(own || (source["type"] == "prometheus" && source["uid"] == "${datasource}"), "{source}");
            sources += 1;
        }
        match value {
            Value::Object(fields) => open.extend(fields.values()),
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    assert!(sources > 50);
    for panel in panels(&dashboard).into_iter().filter(|panel| !is_row(panel)) {
        let title = &panel["title"];
        assert!(panel["datasource"].is_object(), "{title} has no source");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title} asks nothing");
        let letters: Vec<String> =
            panel["targets"].as_array().unwrap().iter().map(|target| text(&target["refId"])).collect();
        assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len(), "{title}");
    }
}

#[test]
fn every_panel_has_unit_and_description() {
    let dashboard = dashboard();
    for panel in panels(&dashboard).into_iter().filter(|panel| !is_row(panel)) {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{} has no unit", panel["title"]);
        let description = panel["description"].as_str();
        assert!(description.is_some_and(|text| text.len() > 10), "{} has no description", panel["title"]);
    }
}

/// Grafana's grid is 24 columns wide; panels that overlap are moved about by it.
#[test]
fn panels_fill_the_grid_without_overlaps() {
    let dashboard = dashboard();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    for panel in panels(&dashboard) {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (left, top, width, height) = (place("x"), place("y"), place("w"), place("h"));
        assert!(width > 0 && height > 0 && left + width <= 24, "{}", panel["title"]);
        for cell in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} overlaps another panel", panel["title"]);
        }
    }
}

#[test]
fn panels_allowed_to_be_empty_exist() {
    let dashboard = dashboard();
    let titles: BTreeSet<String> = panels(&dashboard).iter().map(|panel| text(&panel["title"])).collect();
    assert!(allowed_empty().is_subset(&titles));
}

#[test]
fn provisioning_points_at_files_that_exist() {
    let folder = root().join("grafana");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let compose = read("compose.yaml");
    for line in compose.lines().map(str::trim) {
        let Some((here, _there)) = line.strip_prefix("- .").and_then(|rest| rest.split_once(':')) else {
            continue;
        };
        assert!(folder.join(format!(".{here}")).exists(), "{line} in compose.yaml");
    }
    let path = "/var/lib/grafana/dashboards";
    assert!(compose.contains(&format!(":{path}/poolwright.json:ro")));
    assert!(read("provisioning/dashboards/poolwright.yml").contains(&format!("path: {path}")));
    assert!(read("provisioning/datasources/prometheus.yml").contains("type: prometheus"));
}
