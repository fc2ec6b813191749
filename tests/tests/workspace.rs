//! The rules of the workspace that no compiler keeps: who imports whom, and that the product knows no example.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 9] =
    ["wire", "pool", "relay", "fingerprint", "stats", "proxy", "advisor", "lab", "poolwright"];
const PURE: [&str; 5] = ["wire", "pool", "relay", "fingerprint", "stats"];

fn may_import(name: &str) -> &'static [&'static str] {
    match name {
        "relay" => &["wire"],
        "proxy" => &["relay", "pool", "wire", "fingerprint", "stats"],
        "advisor" => &["fingerprint", "stats", "pool"],
        "lab" => &["wire", "stats", "fingerprint"],
        "poolwright" => &["proxy", "advisor", "lab", "pool", "stats", "fingerprint"],
        _ => &[],
    }
}

fn crates_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates")
}

/// Names under `[dependencies]`, not those for tests alone.
fn dependencies(name: &str) -> Vec<String> {
    let text = fs::read_to_string(crates_folder().join(name).join("Cargo.toml")).unwrap();
    text.lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|word| !word.is_empty() && !word.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_import_only_what_they_may() {
    for name in CRATES {
        for import in dependencies(name).iter().filter(|import| CRATES.contains(&import.as_str())) {
            assert!(may_import(name).contains(&import.as_str()), "{name} may not import {import}");
        }
    }
}

#[test]
fn pure_crates_use_no_sockets_or_runtime() {
    for name in PURE {
        for import in dependencies(name) {
            let refused = ["tokio", "mio", "socket2", "libc", "rand", "parking_lot", "tracing"];
            assert!(!refused.contains(&import.as_str()), "{name} is pure and may not import {import}");
        }
        assert!(crates_folder().join(name).join("clippy.toml").is_file(), "{name} has no clippy.toml");
    }
}
