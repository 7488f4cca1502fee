//! `fastq plan`: how much memory a model will need, before it is loaded.

use std::path::PathBuf;

use clap::Args;
use fastq_core::gguf::{Gguf, OpenOptions};

use crate::signals::Computing;
use crate::terminal::{self, Outcome};

/// Compute the memory a model needs, without loading it
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file
    model: PathBuf,
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    Ok(0)
}
