//! Poolwright: a PostgreSQL pooler that watches, advises and proves. This file only starts the command asked for.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod commands;
mod config;
mod http;
mod optimize;
mod output;
mod report;

/// Keeps what the allocator holds back small: a pooler stands there idle most of the time. By default glibc makes an
/// arena for almost every thread, and after the first large buffer is freed (a rendered snapshot, say) it keeps buffers
/// of that size for good. The data path does not allocate, so nothing waits for the arenas' locks.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn hold_little_memory() {
    // SAFETY: mallopt takes plain numbers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    hold_little_memory();
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
