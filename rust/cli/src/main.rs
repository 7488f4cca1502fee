//! The stand-alone `fastq` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fastq_cli::main(std::env::args_os()))
}
