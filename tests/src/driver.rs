//! The drivers of other languages, installed at first use and kept between runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{program, said};

/// The folder for what drivers need, kept between runs: `drivers/` in cargo's build folder.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn drivers_folder() -> PathBuf {
    let folder = program().parent().and_then(Path::parent).unwrap().join("drivers");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Python with psycopg 3 and asyncpg, in a virtual environment made at first use.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn python() -> PathBuf {
    let venv = drivers_folder().join("venv");
    let _alone = alone(&venv);
    if !venv.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "-q", "psycopg[binary]>=3,<4", "asyncpg<1"]));
        std::fs::write(venv.join("ready"), "").unwrap();
    }
    venv.join("bin/python")
}

/// A folder whose `node_modules` holds node-postgres, filled at first use.
///
/// # Panics
/// When npm cannot install it.
#[must_use]
pub fn node_folder() -> PathBuf {
    let folder = drivers_folder().join("node");
    let _alone = alone(&folder);
    if !folder.join("ready").exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("package.json"), "{\"private\":true}").unwrap();
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "pg@8"])
            .current_dir(&folder));
        std::fs::write(folder.join("ready"), "").unwrap();
    }
    folder
}

/// The example bot's own code, compiled: the folder that holds `dist/` and `node_modules/`.
///
/// # Panics
/// When npm or tsc fail.
#[must_use]
pub fn bot_folder() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/discord-bot");
    let folder = drivers_folder().join("bot");
    let _alone = alone(&folder);
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let copy = |name: &Path| std::fs::read(source.join(name)).unwrap();
    let lock = copy(Path::new("package-lock.json"));
    for name in ["package.json", "package-lock.json", "tsconfig.json"] {
        std::fs::write(folder.join(name), copy(Path::new(name))).unwrap();
    }
    if std::fs::read(folder.join("ready")).ok().as_ref() != Some(&lock) {
        run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder));
        std::fs::write(folder.join("ready"), &lock).unwrap();
    }
    for entry in std::fs::read_dir(source.join("src")).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join("src").join(entry.file_name())).unwrap();
    }
    run(Command::new("npm").args(["run", "--silent", "check"]).current_dir(&folder));
    folder
}

/// A lock beside `path`, held until dropped: tests run at the same time, and one fills the folder for all.
fn alone(path: &Path) -> std::fs::File {
    let lock = std::fs::File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}
