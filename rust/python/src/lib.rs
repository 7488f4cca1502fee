//! The extension module `fastq._fastq`: conversions of types and errors, and letting go of the GIL. No logic.

mod affine;
mod answer;
mod chat;
mod convert;
mod engine;
mod error;
mod evaluate;
mod files;
mod formats;
mod interrupt;
mod json;
mod kept;
mod options;
mod processor;
mod progress;
mod quantize;
mod serve;
mod stream;

use pyo3::prelude::*;

/// The compiled part of fastq.
#[pymodule(gil_used = false)]
mod _fastq {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::affine::affine;
    #[pymodule_export]
    use super::convert::convert;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::evaluate::{calibrate, kl_divergence, perplexity};
    #[pymodule_export]
    use super::files::{cpu_info, default_model, doctor, inspect, plan};
    #[pymodule_export]
    use super::formats::{dequantize_array, formats, quantize_array};
    #[pymodule_export]
    use super::kept::Kept;
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::options::Options;
    #[pymodule_export]
    use super::quantize::{presets, quantize_file, report_html};
    #[pymodule_export]
    use super::serve::serve;
    #[pymodule_export]
    use super::stream::{Cancel, Stream};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Runs the command line; the first argument is the program's name.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| fastq_cli::main(arguments))
}
