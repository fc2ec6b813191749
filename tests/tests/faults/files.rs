//! Configuration that cannot be used.

use std::process::{Command, Output, Stdio};

use tests::{program, said};

fn run(command: &str, text: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, text).unwrap();
    Command::new(program()).arg(command).arg(&file).stdin(Stdio::null()).output().unwrap()
}

const POOL: &str = "[pool.app]\nserver = \"postgres://app:secret@db.internal/app\"\n";

#[test]
fn a_bad_file_is_refused_at_its_line() {
    let cases = [
        (format!("{POOL}maxx = 3\n"), ":3:", "did you mean \"max\"?"),
        (format!("{POOL}max = 3\nmin = 9\n"), ":4:", "min is 9, above max, which is 3"),
        (format!("{POOL}idle_timeout = \"5 parsecs\"\n"), ":3:", ""),
        (format!("{POOL}max = \n"), ":3:", ""),
        ("[pool.app]\nserver = \"mysql://a@b/c\"\n".to_owned(), ":2:", ""),
        (
            "[pool.app]\nserver = \"postgres://u:${NOT_SET_ANYWHERE}@h/d\"\n".to_owned(),
            ":2:",
            "NOT_SET_ANYWHERE",
        ),
        (String::new(), "", "no pool"),
    ];
    for (text, line, message) in cases {
        for command in ["check", "serve"] {
            let output = run(command, text.as_bytes());
            let told = said(&output);
            assert_eq!(output.status.code(), Some(1), "{text}{told}");
            assert!(
                told.contains("bad.toml") && told.contains(line) && told.contains(message),
                "{text}{told}"
            );
            assert!(!told.contains("secret"), "{told}");
        }
    }
}

#[test]
fn a_file_that_is_no_text_or_not_there_is_refused() {
    assert_eq!(run("check", b"\xff\xfe\x00\x01").status.code(), Some(1));
    let output = Command::new(program()).args(["check", "/nonexistent/poolwright.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/nonexistent/poolwright.toml"), "{}", said(&output));
}
