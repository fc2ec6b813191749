//! Counts the system calls of one thread of a child process, as the kernel sees them: ptrace(2) stops the thread at
//! each, which needs no other program and no privilege over one's own child.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use libc::{c_long, c_void, pid_t};

/// Calls by number.
pub type Calls = BTreeMap<c_long, u64>;

/// A thread being watched. It runs slower meanwhile, and otherwise as ever.
pub struct Tracer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Calls>>,
}

impl Tracer {
    /// Begins to count; returns when it does.
    pub fn attach(thread: pid_t) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, attached) = mpsc::channel();
        let until = Arc::clone(&stop);
        // All requests to a traced thread must come from the thread that attached.
        let tracing = std::thread::spawn(move || trace(thread, &until, &ready));
        if attached.recv().is_err() {
            panic!("ptrace is refused here: {:?}", tracing.join().unwrap());
        }
        Self { stop, thread: tracing }
    }

    /// Ends at the thread's next system call.
    pub fn finish(self) -> Calls {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap().unwrap()
    }
}

fn request(what: libc::c_uint, thread: pid_t, address: usize, data: *mut c_void) -> io::Result<c_long> {
    // SAFETY: the requests made here read or write nothing of this process, except PTRACE_GET_SYSCALL_INFO, whose
    // caller passes a structure of `address` bytes.
    let result = unsafe { libc::ptrace(what, thread, address as *mut c_void, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn wait(thread: pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours for the length of the call.
        if unsafe { libc::waitpid(thread, &mut status, libc::__WALL) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Number of the call that the stopped thread is about to make; `None` at the end of one.
fn entered(thread: pid_t) -> io::Result<Option<c_long>> {
    // SAFETY: zero is a valid value of every field.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let bytes = size_of::<libc::ptrace_syscall_info>();
    request(libc::PTRACE_GET_SYSCALL_INFO, thread, bytes, (&raw mut info).cast())?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says that this variant was written.
    Ok(Some(unsafe { info.u.entry.nr } as c_long))
}

fn trace(thread: pid_t, stop: &AtomicBool, ready: &mpsc::Sender<()>) -> io::Result<Calls> {
    let nothing = std::ptr::null_mut();
    request(libc::PTRACE_SEIZE, thread, 0, libc::PTRACE_O_TRACESYSGOOD as usize as *mut c_void)?;
    request(libc::PTRACE_INTERRUPT, thread, 0, nothing)?;
    let mut calls = Calls::new();
    loop {
        let status = wait(thread)?;
        if !libc::WIFSTOPPED(status) {
            return Err(io::Error::other("the thread ended"));
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let at_call = signal == libc::SIGTRAP | 0x80;
        if at_call && let Some(number) = entered(thread)? {
            *calls.entry(number).or_default() += 1;
        }
        if stop.load(Ordering::Acquire) {
            request(libc::PTRACE_DETACH, thread, 0, nothing)?;
            return Ok(calls);
        }
        let deliver = if at_call || event != 0 { 0 } else { signal };
        request(libc::PTRACE_SYSCALL, thread, 0, deliver as usize as *mut c_void)?;
        // Nobody waits for later ones.
        let _ = ready.send(());
    }
}
