//! What a run of the five phases leaves behind: `report.json` and a self-contained `report.html`.

pub mod chart;
pub mod evidence;
pub mod html;
pub mod model;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A report that could not be written: which file, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {path}: {source}")]
pub struct WriteError {
    /// The file or folder that failed.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// The folder that a run leaves its report in. What is in it before the report was written goes away again when this
/// is dropped: a run that failed or was stopped leaves nothing.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What this run made so far, in the order in which it goes away.
    made: Vec<PathBuf>,
    /// Migrations of this run.
    written: Vec<PathBuf>,
}

impl Folder {
    /// Makes the folder where it is not there, and sees to it that files can be written.
    ///
    /// # Errors
    /// Neither can be done.
    pub fn make(path: &Path) -> Result<Self, WriteError> {
        let mut folder = Self { path: path.to_path_buf(), made: Vec::new(), written: Vec::new() };
        folder.folder(path)?;
        let test = temporary(path, b"\n")?;
        test.close().map_err(|source| WriteError { path: path.to_path_buf(), source })?;
        Ok(folder)
    }

    /// Makes a folder with those above it; remembers the ones made.
    fn folder(&mut self, path: &Path) -> Result<(), WriteError> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
            .map(Path::to_path_buf)
            .collect();
        std::fs::create_dir_all(path).map_err(|source| WriteError { path: path.to_path_buf(), source })?;
        // The innermost goes away first.
        self.made.splice(0..0, missing);
        Ok(())
    }

    /// Writes the migrations into `migrations/`, up and down.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn migrations(&mut self, advice: &[advisor::indexes::IndexAdvice]) -> Result<(), WriteError> {
        if advice.is_empty() {
            return Ok(());
        }
        let folder = self.path.join("migrations");
        self.folder(&folder)?;
        let written = advisor::apply::write_migrations(&folder, advice).map_err(|error| WriteError {
            path: folder.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        self.made.splice(0..0, written.iter().cloned());
        self.written.extend(written);
        Ok(())
    }

    /// Takes the migration of this index away again, if this run wrote it: the index did not help.
    pub fn withdraw(&mut self, advice: &advisor::indexes::IndexAdvice) {
        let migrations = self.path.join("migrations");
        for entry in std::fs::read_dir(&migrations).into_iter().flatten().flatten() {
            let path = entry.path();
            if self.written.contains(&path) && advisor::apply::is_migration_of(&path, advice) {
                let _gone = std::fs::remove_file(&path);
            }
        }
    }

    /// What was written so far stays, whatever becomes of the run: it has begun to change a database.
    pub fn stays(&mut self) {
        self.made.clear();
    }

    /// Writes `report.json` and `report.html`, both or neither.
    ///
    /// # Errors
    /// A file cannot be written (a full disk leaves no half file behind).
    pub fn write(&mut self, report: &model::Report, evidence: &evidence::Evidence) -> Result<(), WriteError> {
        let (json_path, page_path) = (self.path.join("report.json"), self.path.join("report.html"));
        let json = serde_json::to_string_pretty(report).unwrap_or_default();
        let page = html::render(report, evidence).map_err(|error| WriteError {
            path: page_path.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let json = temporary(&self.path, json.as_bytes())?;
        let page = temporary(&self.path, page.as_bytes())?;
        let failed = |path: &Path, error: tempfile::PersistError| WriteError {
            path: path.to_path_buf(),
            source: error.error,
        };
        json.persist(&json_path).map_err(|error| failed(&json_path, error))?;
        page.persist(&page_path).map_err(|error| failed(&page_path, error))?;
        self.made.clear();
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for path in &self.made {
            // A folder that somebody else has put something into stays.
            let _stays = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// A file beside its place, whole; renamed by the caller, so that a reader never sees half of it.
fn temporary(folder: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, WriteError> {
    let failed = |source| WriteError { path: folder.to_path_buf(), source };
    let mut file = tempfile::Builder::new().prefix(".report-").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    readable(file.as_file()).map_err(failed)?;
    Ok(file)
}

/// A temporary file starts as 0600; a report is an ordinary file.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests;
