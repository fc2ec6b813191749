//! `poolwright doctor`.

use std::process::ExitCode;

/// Arguments of `poolwright doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args) -> ExitCode {
    crate::output::error("not built yet");
    ExitCode::FAILURE
}
