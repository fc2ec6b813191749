//! What no compiler and no lint looks at: that files stay short, that no test is switched off, that nothing names the
//! machine it was written on, and that the documents name only what is there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{program, said};

/// Lines of a source file beyond which it wants to be two: about 400, with a little grace.
const LINES_MAX: usize = 420;
/// Made by tools, not by us.
const GENERATED: [&str; 6] =
    ["target", "node_modules", "dist", "poolwright-demo", "poolwright-report", "__pycache__"];
/// Hosts that a file may name: our own page, the projects whose rules we cite, and this machine.
const HOSTS: [&str; 14] = [
    "github.com",
    "rustup.rs",
    "static.rust-lang.org",
    "prometheus.io",
    "grafana.com",
    "www.postgresql.org",
    "www.apache.org",
    "www.w3.org",
    "docs.rs",
    "doc.rust-lang.org",
    "127.0.0.1",
    "localhost",
    "prometheus",
    "poolwright",
];
/// Top folders in which a machine keeps what is its own.
const PRIVATE: [&str; 7] = ["home", "root", "Users", "work", "workspace", "builds", "mnt"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !matches!(name.as_str(), ".ci" | ".config" | ".gitignore");
        if hidden || GENERATED.contains(&name.as_str()) || name.ends_with(".log") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// The project's text files: path from its root, and text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &mut found);
    let text = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        fs::read_to_string(path).ok().map(|text| (name, text))
    };
    let files: Vec<_> = found.into_iter().filter_map(text).collect();
    assert!(files.len() > 100, "only {} files found", files.len());
    files
}

fn with(extension: &str) -> Vec<(String, String)> {
    files().into_iter().filter(|(name, _)| name.ends_with(extension)).collect()
}

#[test]
fn source_files_are_short() {
    let sources = [".rs", ".ts", ".js", ".mjs", ".py"].iter().flat_map(|extension| with(extension));
    let long: Vec<String> = sources
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines; look for the seam: {long:#?}");
}

/// A test that is ignored tests nothing, unless another one runs it as a process of its own.
#[test]
fn no_test_is_switched_off() {
    let attribute = ["#[", "ignore"].concat();
    for (name, text) in with(".rs") {
        assert!(!text.contains(&attribute) || text.contains("\"--ignored\""), "{name} ignores a test");
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    for (name, text) in files() {
        for (number, line) in text.lines().enumerate() {
            for folder in PRIVATE {
                let path = format!("/{folder}/");
                let at = line.find(&path).filter(|at| {
                    let before = line[..*at].chars().next_back();
                    !before.is_some_and(|before| before.is_alphanumeric() || "_.)}>*-/".contains(before))
                });
                assert!(at.is_none(), "{name}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn urls_lead_to_known_hosts() {
    for (name, text) in files() {
        for rest in text.split("https://").skip(1).chain(text.split("http://").skip(1)) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c));
            let host = &rest[..end.unwrap_or(rest.len())];
            assert!(host.is_empty() || HOSTS.contains(&host), "{name} names the host {host}");
        }
    }
}

/// Words that follow `poolwright ` in code of the documents: `doctor`, `optimize`, …
fn named_commands() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (_, text) in with(".md") {
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
                continue;
            }
            let spans: Vec<&str> =
                if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
            for span in spans {
                let span = span.trim_start_matches("target/release/");
                let command =
                    span.strip_prefix("poolwright ").and_then(|rest| rest.split_whitespace().next());
                let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
                named.extend(command.filter(is_word).map(str::to_owned));
            }
        }
    }
    named
}

#[test]
fn documented_commands_exist() {
    let help = said(&Command::new(program()).arg("--help").output().unwrap());
    let named = named_commands();
    assert!(named.contains("doctor") && named.contains("serve") && named.len() >= 4, "{named:?}");
    for command in named {
        assert!(help.contains(&format!("\n  {command} ")), "there is no `poolwright {command}`:\n{help}");
    }
}

/// `--load` and the like in the README belong to some command.
#[test]
fn documented_options_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut help = String::new();
    for command in ["serve", "check", "doctor", "optimize", "demo"] {
        help.push_str(&said(&Command::new(program()).args([command, "--help"]).output().unwrap()));
    }
    let words = readme.split(|c: char| c.is_whitespace() || "`();,".contains(c));
    for option in words.filter(|word| word.starts_with("--")) {
        let of_cargo = matches!(option, "--release" | "--");
        assert!(
            of_cargo || help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")),
            "{option}"
        );
    }
}

#[test]
fn links_and_scripts_in_the_documents_exist() {
    for (name, text) in with(".md") {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap().split('#').next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            assert!(folder.join(link).exists(), "{name} links to {link}, which is not there");
        }
        for word in text.split(|c: char| c.is_whitespace() || "`()[];,*\"".contains(c)) {
            let script = word.trim_end_matches(['.', ':']);
            if script.starts_with("script/") && script != "script/" {
                let mode = fs::metadata(root().join(script)).map(|file| file.permissions().mode());
                assert!(
                    mode.is_ok_and(|mode| mode & 0o111 != 0),
                    "{name} names {script}, which cannot be run"
                );
            }
        }
    }
}

/// A source file may be named by the end of its path, as in `worker/replies.rs`.
#[test]
fn source_files_in_the_documents_exist() {
    let sources: Vec<String> = with(".rs").into_iter().map(|(name, _)| format!("/{name}")).collect();
    for (name, text) in with(".md") {
        for span in text.split('`').skip(1).step_by(2) {
            if span.ends_with(".rs") && !span.contains(['{', ' ', '*']) {
                let there = sources.iter().any(|source| source.ends_with(&format!("/{span}")));
                assert!(there, "{name} names {span}, which is not there");
            }
        }
    }
}
