//! A child process of ours: it ends with the value that stands for it, and with this program.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a child may take to leave before it is killed.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A running child. Dropping it ends it: SIGINT, and SIGKILL after 5 s.
#[derive(Debug)]
pub struct Process {
    /// `None` once it was left running.
    child: Option<Child>,
}

impl Process {
    /// Starts `command` in a process group of its own, so that a Ctrl-C at the terminal reaches this program alone
    /// and everything is ended in order. Unless it `outlives` this program, the kernel interrupts it when the
    /// calling thread ends: to be called on the main thread.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, outlives: bool) -> std::io::Result<Self> {
        if outlives {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        } else {
            end_with_parent(&mut command);
        }
        Ok(Self { child: Some(command.spawn()?) })
    }

    /// Its process id; 0 once it was left running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Sends a signal.
    #[allow(unsafe_code)]
    pub fn signal(&self, signal: libc::c_int) {
        let Some(Ok(pid)) = self.child.as_ref().map(|child| libc::pid_t::try_from(child.id())) else {
            return;
        };
        // SAFETY: kill has no memory effects; the child is not yet reaped, so the id is still its own.
        unsafe { libc::kill(pid, signal) };
    }

    /// Lets it run on after this program; gives its process id.
    pub fn leave_running(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.ended(), Ok(None)) {
            return;
        }
        self.signal(libc::SIGINT);
        let Some(mut child) = self.child.take() else { return };
        let until = Instant::now() + LEAVE_MAX;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone = child.kill();
        let _reaped = child.wait();
    }
}

#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: prctl and setpgid are async-signal-safe; the closure touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
            libc::setpgid(0, 0);
            Ok(())
        });
    }
}

/// An address on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// No port can be had.
pub fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_child_ends_with_its_value_unless_it_is_left() {
        let sleeping = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        };
        let process = Process::start(sleeping(), false).unwrap();
        let there = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        let pid = process.pid();
        assert!(there(pid));
        drop(process);
        assert!(!there(pid));
        let pid = Process::start(sleeping(), true).unwrap().leave_running();
        assert!(there(pid));
        #[allow(unsafe_code)]
        // SAFETY: kill has no memory effects; the child is ours and not reaped.
        unsafe {
            libc::kill(libc::pid_t::try_from(pid).unwrap(), libc::SIGKILL)
        };
    }
}
