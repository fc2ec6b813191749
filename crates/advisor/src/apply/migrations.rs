//! Migrations as plain SQL files, up and down.

use std::fs;
use std::path::{Path, PathBuf};

use crate::AdvisorError;
use crate::indexes::IndexAdvice;

/// The file's name without its number: `<name>.up.sql` or `<name>.down.sql`.
fn file_name(index: &IndexAdvice, side: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
    format!("{}.{side}.sql", index.name.chars().map(safe).collect::<String>())
}

/// Whether `path` is a migration of this index, whatever its number.
#[must_use]
pub fn is_migration_of(path: &Path, index: &IndexAdvice) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let after_number = name.split_once('_').map(|(_, rest)| rest);
    ["up", "down"].iter().any(|side| after_number == Some(file_name(index, side).as_str()))
}

/// Writes `NNNN_<name>.up.sql` and `.down.sql` into `dir`, numbered after what is there; answers the paths made. An
/// index that has its migration there from an earlier run keeps that one.
///
/// # Errors
/// A file cannot be written; none of this call is left then.
pub fn write_migrations(dir: &Path, advice: &[IndexAdvice]) -> Result<Vec<PathBuf>, AdvisorError> {
    fs::create_dir_all(dir)?;
    let there: Vec<PathBuf> = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let number_of = |path: &PathBuf| path.file_name()?.to_str()?.split('_').next()?.parse::<u32>().ok();
    let mut number = there.iter().filter_map(number_of).max().unwrap_or(0);
    let mut made = Vec::new();
    for index in advice {
        if there.iter().any(|path| is_migration_of(path, index)) {
            continue;
        }
        number += 1;
        let head = "-- Not inside a transaction: CONCURRENTLY may not run there.";
        let reason = index.reason.replace(['\n', '\r'], " ");
        let up = format!("-- {reason}\n{head}\nSET lock_timeout = '5s';\n{};\n", index.sql_up);
        let down = format!("{head}\nSET lock_timeout = '5s';\n{};\n", index.sql_down);
        for (side, text) in [("up", up), ("down", down)] {
            let path = dir.join(format!("{number:04}_{}", file_name(index, side)));
            made.push(path.clone());
            if let Err(error) = fs::write(&path, text) {
                // The last one may be half a file, or none.
                made.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(error.into());
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn index(name: &str) -> IndexAdvice {
        IndexAdvice {
            name: name.into(),
            sql_up: format!("CREATE INDEX CONCURRENTLY {name} ON t (a)"),
            sql_down: format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
            schema: "public".into(),
            table: "t".into(),
            columns: vec!["a".into()],
            reason: "two\nlines".into(),
            fingerprints: Vec::new(),
            plan_before: String::new(),
            plan_after: None,
            cost_before: 1.0,
            cost_after: None,
            size_bytes: 0,
            method: "explain".into(),
        }
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn numbers_go_on_and_an_index_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_migrations(dir.path(), &[index("idx_a")]).unwrap();
        assert_eq!(names(&made), ["0001_idx_a.up.sql", "0001_idx_a.down.sql"]);
        assert!(made.iter().all(|path| is_migration_of(path, &index("idx_a"))));
        assert!(!is_migration_of(&made[0], &index("a")));
        let made = write_migrations(dir.path(), &[index("idx_a"), index("idx_b")]).unwrap();
        assert_eq!(names(&made), ["0002_idx_b.up.sql", "0002_idx_b.down.sql"]);
        let text = fs::read_to_string(&made[0]).unwrap();
        assert!(
            text.starts_with("-- two lines\n") && text.contains("CREATE INDEX CONCURRENTLY idx_b"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_written_whole_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(300);
        // The second name is longer than a file system allows.
        assert!(write_migrations(dir.path(), &[index("idx_a"), index(&long)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
