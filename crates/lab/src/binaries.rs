//! Where PostgreSQL's server programs are, and as whom they may run.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that holds `initdb` and `postgres`: `given` if it does, else the first of PATH, `pg_config --bindir`
/// and the places where Debian, Red Hat and Homebrew put them (newest major first).
///
/// # Errors
/// A sentence that says where was looked and what to install.
pub fn find(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(folder) = given {
        return if is_server(folder) {
            Ok(folder.to_path_buf())
        } else {
            Err(format!(
                "{} holds no initdb and postgres; give the folder of PostgreSQL's programs",
                folder.display()
            ))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(from_pg_config())
        .chain(usual_places())
        .find(|folder| is_server(folder))
        .ok_or_else(|| {
            "no PostgreSQL server programs (initdb, postgres) in PATH, pg_config's folder or the usual places: \
             install the package `postgresql`, or name the folder with --postgres-bin"
                .to_owned()
        })
}

fn is_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

fn from_pg_config() -> Option<PathBuf> {
    let out = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (!text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// Major versions found on disk, newest first.
fn usual_places() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    let parents = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ];
    for (parent, prefix, bin) in parents {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let major = name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|n| n.parse().ok());
            if let Some(major) = major {
                found.push((major, entry.path().join(bin)));
            }
        }
    }
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// A user other than root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// PostgreSQL refuses to run as root: then the account to run it as (`postgres`, else `nobody`). `None` when the
/// caller is not root.
///
/// # Errors
/// A sentence when the caller is root and neither account exists.
pub fn account() -> Result<Option<Account>, String> {
    if effective_uid() != 0 {
        return Ok(None);
    }
    ["postgres", "nobody"].into_iter().find_map(lookup).map(Some).ok_or_else(|| {
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`".to_owned()
    })
}

#[allow(unsafe_code)]
fn effective_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

#[allow(unsafe_code)]
fn lookup(name: &str) -> Option<Account> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is a NUL-terminated string; the answer points into libc's static storage and is read at once.
    let entry = unsafe { libc::getpwnam(name.as_ptr()).as_ref() }?;
    Some(Account { uid: entry.pw_uid, gid: entry.pw_gid })
}
