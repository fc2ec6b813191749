//! A child process that does not outlive us, however we end; unless it shall.
//!
//! The kernel's parent-death signal follows the *thread* that started the child, not the process (prctl(2),
//! PR_SET_PDEATHSIG). So each child gets a thread of its own, which starts it, waits for it and ends with it.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(10);

/// A running child. Dropping the value leaves the child running until this process ends; see [`Kept::end`].
#[derive(Debug)]
pub struct Kept {
    pid: u32,
    keeper: JoinHandle<Option<ExitStatus>>,
}

impl Kept {
    /// Starts `command` in a process group of its own (a Ctrl-C at the terminal is for us alone; we end our children
    /// in our own order). The child gets `death_signal` when this process dies, on Linux; with `None` it lives on.
    ///
    /// # Errors
    /// The child or its thread cannot be started.
    pub fn start(mut command: Command, death_signal: Option<i32>) -> io::Result<Self> {
        prepare(&mut command, death_signal);
        let (tell, told) = mpsc::channel();
        let keeper = std::thread::Builder::new().name("child keeper".into()).spawn(move || {
            let child = command.spawn();
            let pid = child.as_ref().map(Child::id).map_err(|e| io::Error::new(e.kind(), e.to_string()));
            let told = tell.send(pid).is_ok();
            child.ok().filter(|_| told).and_then(|mut child| child.wait().ok())
        })?;
        let pid = told.recv().map_err(io::Error::other)??;
        Ok(Self { pid, keeper })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True until the child has ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.keeper.is_finished()
    }

    /// Sends a signal; does nothing once the child has ended.
    #[allow(unsafe_code)]
    pub fn signal(&self, signal: i32) {
        let Ok(pid) = i32::try_from(self.pid) else { return };
        if self.is_running() {
            // SAFETY: kill has no memory effects. The keeper may reap the child between the look and the call; the
            // kernel does not hand an id out again that soon.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Sends the signals in turn, the next one `limit` after the last, until the child is gone; finally SIGKILL.
    /// Gives its exit status.
    pub fn end(self, signals: &[i32], limit: Duration) -> Option<ExitStatus> {
        for signal in signals {
            self.signal(*signal);
            let asked = Instant::now();
            while self.is_running() && asked.elapsed() < limit {
                std::thread::sleep(LOOK);
            }
        }
        self.signal(libc::SIGKILL);
        self.keeper.join().unwrap_or(Some(ExitStatus::from_raw(libc::SIGKILL)))
    }
}

#[allow(unsafe_code)]
fn prepare(command: &mut Command, death_signal: Option<i32>) {
    let parent = std::process::id();
    // SAFETY: prctl, getppid and setpgid are async-signal-safe; the closure touches no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            if let Some(death_signal) = death_signal {
                libc::prctl(libc::PR_SET_PDEATHSIG, death_signal);
                // The parent may have died before the call above: then nobody is left to send the signal.
                if u32::try_from(libc::getppid()).ok() != Some(parent) {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            libc::setpgid(0, 0);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::path::PathBuf;
    use std::process::Stdio;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    fn process(pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/exe"))
    }

    #[test]
    fn ends_when_told() {
        let kept = Kept::start(sleeper(), Some(libc::SIGTERM)).unwrap();
        assert!(kept.is_running());
        let status = kept.end(&[libc::SIGTERM], Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_child_deaf_to_the_first_signal_gets_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let deaf = folder.path().join("deaf");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("trap '' TERM; : >'{}'; while :; do sleep 0.1; done", deaf.display()));
        let kept = Kept::start(command, Some(libc::SIGTERM)).unwrap();
        let began = Instant::now();
        while !deaf.exists() {
            assert!(began.elapsed() < Duration::from_secs(10), "the shell does not start");
            std::thread::sleep(LOOK);
        }
        let status = kept.end(&[libc::SIGTERM, libc::SIGHUP], Duration::from_millis(200)).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGHUP));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(Kept::start(Command::new("/nowhere/at all"), None).is_err());
    }

    /// The test runs itself a second time, with this set, as the parent to be killed.
    const PARENT: &str = "KEPT_TEST_PARENT";

    #[test]
    fn a_child_does_not_outlive_a_parent_killed_outright() {
        if std::env::var_os(PARENT).is_some() {
            let kept = Kept::start(sleeper(), Some(libc::SIGTERM)).unwrap();
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "child {}", kept.pid());
            loop {
                std::thread::park();
            }
        }
        let name = "kept::tests::a_child_does_not_outlive_a_parent_killed_outright";
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(PARENT, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(parent.stderr.take().unwrap()).lines();
        let pid: u32 = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("child ").and_then(|pid| pid.parse().ok()))
            .unwrap();
        assert!(std::fs::read_link(process(pid)).is_ok(), "the child runs");
        parent.kill().unwrap();
        parent.wait().unwrap();
        let killed = Instant::now();
        // A zombie not yet reaped by init has no executable either.
        while std::fs::read_link(process(pid)).is_ok() {
            assert!(killed.elapsed() < Duration::from_secs(10), "the child lives on");
            std::thread::sleep(LOOK);
        }
    }
}
