//! `fastq serve`: a model over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::default_model::set;
use crate::options::{LoadArguments, text_of, usage};
use crate::serve::{Limits, ServeOptions, serve};
use crate::signals::Computing;
use crate::terminal::{self, Failure, Outcome};
use crate::report;

/// Serve a model over HTTP
///
/// OpenAI's interface (/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models), /tokenize, /detokenize, /health, /metrics, and at / a
/// page to talk with the model. Without a key only programs on this machine can connect. Ctrl-C or SIGTERM ends it: answers under way
/// go on for the grace time, a second one ends it at once. Without MODEL the default model answers.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file
    model: Option<PathBuf>,
    /// Address to listen on; one that other machines can reach needs a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port; 0 takes one that is free
    #[arg(short, long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Key that clients must send; others on this machine can see it in the list of processes, so rather set FASTQ_API_KEY
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    api_key: Option<String>,
    /// File with the key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Site (https://example.com) whose pages may use the server; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// What the model is called [default: as its file]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Requests that are computed at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    parallel: usize,
    /// Requests that may wait; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: usize,
    /// Seconds that answers may go on when the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u32,
    /// Print a line per request on stderr: method, path, status and time, never texts or keys
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// The key, from the one place that has it.
fn api_key(arguments: &Arguments) -> Outcome<Option<String>> {
    match (&arguments.api_key, &arguments.api_key_file, set("FASTQ_API_KEY")) {
        (Some(key), _, _) => Ok(Some(key.clone())),
        (None, Some(path), _) => Ok(Some(text_of(path)?.trim().to_owned())),
        (None, None, Some(key)) => match key.into_string() {
            Ok(key) => Ok(Some(key)),
            Err(_) => usage("FASTQ_API_KEY is not UTF-8"),
        },
        (None, None, None) => Ok(None),
    }
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let options = ServeOptions {
        api_key: api_key(&arguments)?,
        host: arguments.host,
        port: arguments.port,
        origins: arguments.allow_origin,
        alias: arguments.alias,
        parallel: arguments.parallel,
        queue: arguments.queue,
        grace: Duration::from_secs(arguments.grace.into()),
        verbose: arguments.verbose,
        terminate: true,
        limits: Limits::default(),
    };
    let computing = Computing::begin();
    let model = arguments.load.load(arguments.model.as_deref(), &computing)?;
    report::warn(&model);
    let ready = |address: std::net::SocketAddr| {
        // Who started the server reads from this line where it is; a closed stdout is no reason to stop.
        let _ = terminal::print_line(&format!("listening on http://{address}"));
    };
    match serve(&model, &options, ready, &computing) {
        Ok(()) => Ok(0),
        Err(error @ fastq_core::Error::Argument(_)) => Err(Failure::Usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
