//! The server, in a Python process.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastq_cli::serve as server;
use fastq_cli::serve::ServeOptions;
use fastq_core::Interrupt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::engine::Engine;
use crate::interrupt::detached;
use crate::options::natural;

/// Serves a model until Ctrl-C; `ready` gets the address as a text.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "one parameter per option of the Python API")]
pub(crate) fn serve(
    py: Python<'_>,
    engine: &Bound<'_, Engine>,
    host: String,
    port: &Bound<'_, PyAny>,
    api_key: Option<String>,
    origins: Vec<String>,
    alias: Option<String>,
    parallel: &Bound<'_, PyAny>,
    queue: &Bound<'_, PyAny>,
    grace: f64,
    verbose: bool,
    ready: Option<Py<PyAny>>,
) -> PyResult<()> {
    let model = engine.get().model()?;
    let grace = Duration::try_from_secs_f64(grace)
        .map_err(|error| PyValueError::new_err(format!("grace must be a number of seconds, found {grace}: {error}")))?;
    let options = ServeOptions {
        host,
        port: natural(port, "port")?,
        api_key,
        origins,
        alias,
        parallel: natural(parallel, "parallel")?,
        queue: natural(queue, "queue")?,
        grace,
        verbose,
        ..ServeOptions::default()
    };
    // What `ready` raises ends the server; so does Ctrl-C, which is how it is meant to end.
    let raised: Mutex<Option<PyErr>> = Mutex::default();
    detached(py, None, |interrupt| {
        let tell = |address: std::net::SocketAddr| {
            let Some(ready) = &ready else { return };
            let told = Python::try_attach(|py| ready.call1(py, (format!("http://{address}"),)).map(drop));
            if let Some(Err(error)) = told {
                *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        };
        let stop = || raised.lock().unwrap_or_else(PoisonError::into_inner).is_some() || interrupt.stop();
        server::serve(&model, &options, tell, &stop)
    })?;
    raised.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
