//! The only place that writes to stdout and stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use tracing_subscriber::EnvFilter;

/// Sends log lines to stderr: warnings, with `-v` information, with `-vv` everything. `POOLWRIGHT_LOG` overrides.
pub fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("POOLWRIGHT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init();
    if started.is_err() {
        error("logging was started twice");
    }
}

/// A line on stdout; a closed pipe is not an error.
pub fn line(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// A line on stderr.
pub fn note(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// An error on stderr.
pub fn error(text: &str) {
    note(&format!("poolwright: {text}"));
}

/// An error with its place in a file, drawn by miette.
pub fn report(report: &miette::Report) {
    note(&format!("{report:?}"));
}
