//! Phase 5: the same load again, against the targets.

use super::{idle_memory, phase, rates, sustained};
use crate::optimize::session::Session;
use crate::report::model::{Phase, PhaseName, SlowQuery};

/// Measures what has come of it all: both rates, the sustained rate, and the idle memory with Poolwright's own.
///
/// # Errors
/// A sentence for the user.
pub async fn run(session: &mut Session) -> Result<(Phase, Vec<SlowQuery>), String> {
    session.begin(PhaseName::Verify).await?;
    let rates = rates(session).await?;
    let (mut phase, slow) = phase(session, PhaseName::Verify, &rates);
    sustained(session, &mut phase, &rates, session.pace.tries_verify).await?;
    phase.idle_memory_bytes = idle_memory(session, true).await?;
    Ok((phase, slow))
}
