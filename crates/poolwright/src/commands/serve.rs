//! `poolwright serve`.

use std::process::ExitCode;

/// Arguments of `poolwright serve`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args) -> ExitCode {
    crate::output::error("not built yet");
    ExitCode::FAILURE
}
