//! `fastq doctor`: what this machine has and what fastq makes of it.

use clap::Args;
use fastq_core::doctor::{Grade, to_json};

use crate::doctor::examine;
use crate::report::table;
use crate::signals::Computing;
use crate::terminal::{self, Outcome, one_line};

/// Check what this machine offers to fastq
///
/// Exit code 1 when something keeps fastq from running.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let findings = examine(&Computing::begin())?;
    if arguments.json {
        terminal::print_json(&to_json(&findings))?;
    } else {
        let rows: Vec<_> =
            findings.iter().map(|f| vec![f.grade.name().to_owned(), f.name.to_owned(), one_line(&f.text)]).collect();
        terminal::print_line(table(&["", "", ""], &rows).trim_start_matches('\n'))?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.grade == Grade::Problem)))
}
