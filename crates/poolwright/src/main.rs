//! Poolwright: a PostgreSQL pooler that watches, advises and proves. This file only starts the command asked for.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod commands;
mod config;
mod http;
mod memory;
mod optimize;
mod output;
mod report;

fn main() -> ExitCode {
    memory::hold_little();
    let cli = cli::Cli::parse();
    output::start_logging(cli.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(commands::run(cli.command))
}
