//! `poolwright check FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{config, output};

/// Arguments of `poolwright check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    pub file: PathBuf,
}

/// Reads the file and says whether it would be served.
pub async fn run(args: Args) -> ExitCode {
    match config::load(&args.file) {
        Ok(config) => {
            output::line(&format!("{}: good, {} pool(s)", args.file.display(), config.settings.pools.len()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::report(&error.into());
            ExitCode::FAILURE
        }
    }
}
