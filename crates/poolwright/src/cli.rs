//! The command line as clap sees it. Each command's arguments stand in its own file.

use clap::{Parser, Subcommand};

use crate::commands::{check, demo, doctor, optimize, serve};

/// A PostgreSQL pooler that watches every query, says what is slow and why, and proves the fix.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// Say more on stderr; twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pooler.
    Serve(serve::Args),
    /// Check a configuration file.
    Check(check::Args),
    /// Examine a database and list what is wrong with it.
    Doctor(doctor::Args),
    /// Run the five phases on a database.
    Optimize(optimize::Args),
    /// Run the five phases on a throwaway PostgreSQL with the example bot.
    Demo(demo::Args),
}
