//! `check` and `serve` on files that cannot be served: exit code 1, the file's name, the place, what is wrong, and no
//! password.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use tests::{program, said};

const POOL: &str = "[pool.app]\nserver = \"postgres://app:verysecret@db.internal/app\"\n";

/// What both commands say of `file`; they must agree.
fn refused(file: &Path) -> String {
    let told = ["check", "serve"].map(|command| {
        let output = Command::new(program()).arg(command).arg(file).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(output.stdout.is_empty(), "errors belong on stderr");
        said(&output)
    });
    assert_eq!(told[0], told[1]);
    assert!(!told[0].contains("verysecret"), "{}", told[0]);
    // Long lines are wrapped.
    told[0].replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn bad(text: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, text).unwrap();
    let told = refused(&file);
    for part in parts.iter().chain(&["bad.toml"]) {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn a_mistake_is_shown_at_its_line() {
    bad(
        &format!("{POOL}idle_timout = \"30s\"\n"),
        &[":3:", "unknown key idle_timout", "did you mean \"idle_timeout\"?"],
    );
    bad(&format!("{POOL}max = \"ten\"\n"), &[":3:", "the text \"ten\" stands where a whole number"]);
    bad(&format!("{POOL}max = 3\nmin = 9\n"), &[":4:", "min is 9, above max, which is 3"]);
    bad(&format!("{POOL}{POOL}"), &["duplicate key"]);
    bad(&format!("{POOL}[pool.app.users]\n"), &["an empty list of users"]);
    bad(
        &format!("{POOL}[console]\nadmins = {{ root = \"\" }}\n"),
        &[":4:", "user \"root\" has an empty password"],
    );
    bad("[pool.app]\nserver = \"postgres://app@db/app\"\n", &[":2:", "no password"]);
    bad("[pool.app]\nserver = \"postgres://app:verysecret@db/app?sslmode=require\"\n", &[":2:", "TLS"]);
    bad(&format!("listen = []\n{POOL}"), &[":1:", "nobody could connect"]);
    bad("", &["no pool"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let told = refused(folder.path());
    assert!(
        told.contains("it is a directory") && told.contains(&folder.path().display().to_string()),
        "{told}"
    );
    let told = refused(&folder.path().join("nowhere.toml"));
    assert!(told.contains("nowhere.toml") && told.contains("No such file"), "{told}");
    let looped = folder.path().join("looped.toml");
    std::os::unix::fs::symlink(&looped, &looped).unwrap();
    assert!(refused(&looped).contains("symbolic links"));
    let large = folder.path().join("large.toml");
    std::fs::write(&large, format!("{POOL}{}", "# filler\n".repeat(10 << 20 >> 3))).unwrap();
    assert!(refused(&large).contains("it is larger than 1 MB"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[pool.app]\n\xff\xfe").unwrap();
    assert!(refused(&binary).contains("byte 12 is not UTF-8"));
    assert!(refused(Path::new("/dev/zero")).contains("larger than 1 MB"));
}

#[test]
fn a_good_file_is_said_to_be_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("good.toml");
    std::fs::write(&file, POOL).unwrap();
    let output = Command::new(program()).arg("check").arg(&file).output().unwrap();
    assert!(output.status.success());
    assert!(said(&output).contains("good.toml: good, 1 pool(s)"), "{}", said(&output));
}
