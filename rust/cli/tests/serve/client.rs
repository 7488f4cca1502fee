//! A server in this process with a tiny model, and a client that speaks HTTP byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use fastq_cli::serve::{ServeOptions, serve};
use fastq_core::{LoadOptions, Model, Never};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::tiny_model::{self, Tiny};

/// A server, which ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<fastq_core::Result<()>>>,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn new(options: ServeOptions) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        tiny_model::write(&path, Tiny::default());
        let load = LoadOptions { threads: Some(1), ..LoadOptions::default() };
        let model = Model::load(&path, &load, &Never).unwrap();
        let options = ServeOptions { port: 0, ..options };
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, address) = mpsc::channel();
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let interrupt = move || flag.load(Ordering::Relaxed);
            serve(&model, &options, |address| sender.send(address).unwrap(), &interrupt)
        });
        Server { address: address.recv().unwrap(), stop, thread: Some(thread), _folder: folder }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Response {
        let mut stream = self.connect();
        // A server that refuses need not read all.
        let _ = stream.write_all(bytes);
        Response::read(stream)
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.raw(&request(method, path, headers, body))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// A value of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a value of `/metrics` is as it should be.
    pub(crate) fn wait_for(&self, name: &str, holds: impl Fn(f64) -> bool) {
        for _ in 0..500 {
            if holds(self.metric(name)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} stays {}", self.metric(name));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            result.unwrap().unwrap().unwrap();
        }
    }
}

/// The bytes of a request, after which the connection closes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += "Host: localhost\r\n";
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    /// 0 when the connection was closed without one.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Reads to the end of the connection.
    pub(crate) fn read(mut stream: TcpStream) -> Response {
        let mut bytes = Vec::new();
        // What came before a reset counts.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Response { status, head: head.to_owned(), body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data of all events; `[DONE]` as a string.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }

    /// `(message, param)` of an error.
    pub(crate) fn error(&self) -> (String, Option<String>) {
        let error = &self.json()["error"];
        (error["message"].as_str().unwrap().to_owned(), error["param"].as_str().map(str::to_owned))
    }
}

/// The data of a chunked body, as far as it is complete.
fn unchunked(mut body: &str) -> String {
    let mut data = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        data += chunk;
        body = rest.get(size + 2..).unwrap_or("");
    }
    data
}

/// A connection of a client that reads slowly: what it does not read fills the few bytes of its buffer, and then the server waits.
pub(crate) fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// A name of the model that makes events long.
pub(crate) static LONG_NAME: LazyLock<String> = LazyLock::new(|| "m".repeat(1000));

/// Begins an answer of a server with a [`LONG_NAME`] that is longer (64 times 250 tokens, 19 MB) than the sockets and the server hold: it goes on
/// until it is read.
pub(crate) fn begin(address: SocketAddr) -> BufReader<TcpStream> {
    let body = json!({ "prompt": "abc", "n": 64, "max_tokens": 250, "ignore_eos": true, "stream": true });
    let mut stream = narrow(address);
    stream.write_all(&request("POST", "/v1/completions", &[], body.to_string().as_bytes())).unwrap();
    read_until(stream, "data: ")
}

/// Reads lines of a stream until one holds `text`.
fn read_until(stream: TcpStream, text: &str) -> BufReader<TcpStream> {
    let mut reader = BufReader::with_capacity(1024, stream);
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended before {text:?}");
    }
    reader
}
