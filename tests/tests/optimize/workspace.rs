//! A temporary folder of its own for each run of the program, so that what it leaves behind can be seen.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::program;

/// Where a run may write.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pw").tempdir().unwrap();
        // PostgreSQL runs as another user when the tests run as root.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        std::fs::set_permissions(folder.path().join("tmp"), std::fs::Permissions::from_mode(0o777)).unwrap();
        Self { folder }
    }

    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The program with its temporary files here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).arg("--out").arg(self.out()).env("TMPDIR", self.temporary());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Names of what lies in the temporary folder.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.temporary()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Command lines of the processes that were started with a path in here.
    pub fn processes(&self) -> Vec<String> {
        let here = self.temporary().display().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&here).then_some(line)
        });
        processes.collect()
    }

    pub fn assert_clean(&self) {
        tests::wait_for("all processes of the run are gone", || self.processes().is_empty());
        assert_eq!(self.left(), Vec::<String>::new());
    }
}
