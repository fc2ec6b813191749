//! One file per command: its arguments, and `run`.

use std::process::ExitCode;

use crate::cli::Command;

pub mod check;
pub mod demo;
pub mod doctor;
pub mod interrupt;
pub mod measured;
pub mod optimize;
pub mod serve;

/// Runs the command; its exit code is the program's.
pub async fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Optimize(args) => optimize::run(args).await,
        Command::Demo(args) => demo::run(args).await,
    }
}
