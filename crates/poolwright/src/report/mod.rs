//! What a run of the five phases leaves behind: `report.json` and a self-contained `report.html`.

pub mod chart;
pub mod evidence;
pub mod html;
pub mod model;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A report that could not be written: which file, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct WriteError {
    /// The file or folder that failed.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// Writes `report.json` and `report.html` to `folder`, each whole or not at all.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written (a full disk leaves no half file behind).
pub fn write(folder: &Path, report: &model::Report, evidence: &evidence::Evidence) -> Result<(), WriteError> {
    std::fs::create_dir_all(folder).map_err(|source| WriteError { path: folder.to_path_buf(), source })?;
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    whole(&folder.join("report.json"), json.as_bytes())?;
    let page = html::render(report, evidence).map_err(|error| WriteError {
        path: folder.join("report.html"),
        source: std::io::Error::other(error.to_string()),
    })?;
    whole(&folder.join("report.html"), page.as_bytes())
}

/// Writes beside the file and renames, so that a reader never sees half of it.
fn whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let failed = |source| WriteError { path: path.to_path_buf(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".report-").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    readable(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A temporary file starts as 0600; a report is an ordinary file.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests;
