//! Being told to stop: Ctrl-C, SIGTERM and SIGHUP all end a run in order.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, caught from the moment this exists.
pub struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    /// Catches them from now on.
    ///
    /// # Errors
    /// A sentence, when the system refuses.
    pub fn new() -> Result<Self, String> {
        let caught = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
            hangup: caught(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them; the exit code a shell expects then: 130, 143 or 129.
    pub async fn come(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}
