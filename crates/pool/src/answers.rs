//! What a pool answers.

use crate::{ClientId, ServerId, Ticket};

/// Answer to [`crate::Pool::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The client has this server now.
    Server(ServerId),
    /// The client waits.
    Queued {
        /// Its place, for [`crate::Pool::cancel`].
        ticket: Ticket,
        /// The caller starts opening a server in this slot.
        open: Option<ServerId>,
    },
}

/// What becomes of a server that came free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It lies idle in the pool.
    Idle,
    /// It is checked out again, by the oldest waiter.
    Next {
        /// Who has it now.
        client: ClientId,
        /// The ticket that was served.
        ticket: Ticket,
        /// How long that client waited.
        waited_us: u64,
    },
    /// The caller closes it and then calls [`crate::Pool::closed`].
    Close(CloseReason),
}

/// Why a server connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// Idle for too long.
    Idle,
    /// Too old.
    Lifetime,
    /// The connection failed, or its state is in doubt.
    Error,
    /// Its session could not be reset.
    ResetFailed,
    /// The limits changed, or an administrator asked.
    Admin,
    /// Its client left in the middle of something.
    Abandoned,
}

impl CloseReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [CloseReason; 6] =
        [Self::Idle, Self::Lifetime, Self::Error, Self::ResetFailed, Self::Admin, Self::Abandoned];

    /// The value of the label `reason` in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Error => "error",
            Self::ResetFailed => "reset_failed",
            Self::Admin => "admin",
            Self::Abandoned => "abandoned",
        }
    }
}
