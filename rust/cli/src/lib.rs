//! The `fastq` command: the same for the stand-alone program and for the console script of the Python package.
//!
//! Exit codes: 0 success, 1 error (one line `error: …` on stderr), 2 wrong usage, 130 interrupted. Answers go to stdout,
//! everything else to stderr. Only this crate prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line is for")]

mod command;
pub mod default_model;
pub mod doctor;
mod options;
mod progress;
mod report;
pub mod serve;
mod signals;
mod terminal;

use std::ffi::OsString;

use clap::Parser;

use crate::command::Command;
use crate::terminal::Failure;

/// Small language models on the processor that is already there.
#[derive(Parser)]
#[command(name = "fastq", bin_name = "fastq", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs the command line `args` (the program's name first) and gives the exit code.
///
/// Interrupts (Ctrl-C) are caught from the first call on, for the rest of the process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, wrong usage to stderr with code 2. A closed stream is no news.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    signals::install();
    match cli.command.run() {
        Ok(code) => code,
        Err(Failure::Closed) => 0,
        Err(Failure::Interrupted) => 130,
        Err(Failure::Error(message)) => {
            terminal::note(&format!("{} {}", terminal::style("1;31", "error:"), terminal::one_line(&message)));
            1
        }
        Err(Failure::Usage(message)) => {
            terminal::note(&format!("{} {}", terminal::style("1;31", "error:"), terminal::one_line(&message)));
            2
        }
    }
}
