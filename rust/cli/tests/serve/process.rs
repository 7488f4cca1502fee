//! The command as a process: its line, signals, exit codes, and what it logs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tempfile::TempDir;

use crate::client::{LONG_NAME, Response, begin, request};
use crate::tiny_model::{self, Tiny};

/// A server that runs.
struct Process {
    child: Child,
    address: String,
    _folder: TempDir,
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastq"));
    command.args(["serve", "tiny.gguf", "--port", "0"]).args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env_remove("FASTQ_API_KEY");
    command
}

impl Process {
    fn new(arguments: &[&str]) -> Process {
        let folder = tempfile::tempdir().unwrap();
        tiny_model::write(&folder.path().join("tiny.gguf"), Tiny::default());
        std::fs::write(folder.path().join("key"), "secret-key-1\n").unwrap();
        let mut child =
            command(folder.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
        Process { address: address.to_owned(), child, _folder: folder }
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Exit code and stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn signals_end_it_with_a_last_event() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let process = Process::new(&["--grace", "0", "--alias", &LONG_NAME]);
        let readers: Vec<_> = (0..4).map(|_| begin(process.address.parse().unwrap())).collect();
        process.signal(signal);
        // What is read before it has noticed makes room for more of the answer.
        while TcpStream::connect(&process.address).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(100));
        let read = |mut reader: BufReader<TcpStream>| {
            // It has let the answer wait, and now makes haste.
            SockRef::from(reader.get_ref()).set_recv_buffer_size(1 << 20).unwrap();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            rest
        };
        let threads: Vec<_> = readers.into_iter().map(|reader| std::thread::spawn(move || read(reader))).collect();
        for rest in threads.into_iter().map(|thread| thread.join().unwrap()) {
            let last: Vec<&str> = rest.lines().filter(|line| line.starts_with("data: ")).rev().take(2).collect();
            assert!(last[1].contains("shutting_down") && last[0] == "data: [DONE]", "{last:?}");
        }
        assert_eq!(process.end(), (Some(0), String::new()));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(libc::SIGTERM, 0), (libc::SIGINT, 130)] {
        let process = Process::new(&["--grace", "60", "--alias", &LONG_NAME]);
        // A client that does not read keeps its stream open.
        let _reader = begin(process.address.parse().unwrap());
        process.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        process.signal(signal);
        assert_eq!(process.end().0, Some(code));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn the_log_tells_no_secrets() {
    let process = Process::new(&["--verbose", "--api-key-file", "key"]);
    let key = [("Authorization", "Bearer secret-key-1")];
    let chat = |text: &str| {
        format!(r#"{{"messages": [{{"role": "user", "content": "{text}"}}], "max_tokens": 3, "ignore_eos": true}}"#)
    };
    let good = process.send(&request("POST", "/v1/chat/completions", &key, chat("hidden words").as_bytes()));
    assert_eq!(Response::read(good).status, 200);
    let bad = process.send(&request("POST", "/v1/chat/completions", &key, br#"{"messages": "hidden words"}"#));
    assert_eq!(Response::read(bad).status, 400);
    let wrong = [("Authorization", "Bearer hidden-key")];
    let refused = process.send(&request("GET", "/v1/models?hidden=1", &wrong, b""));
    assert_eq!(Response::read(refused).status, 401);
    process.signal(libc::SIGTERM);
    let (code, log) = process.end();
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(
        lines[0].starts_with("POST /v1/chat/completions 200 ") && lines[0].ends_with(" ms, 29 tokens read, 3 written"),
        "{log}"
    );
    assert!(
        lines[1].starts_with("POST /v1/chat/completions 400 ") && lines[2].starts_with("GET /v1/models 401 "),
        "{log}"
    );
    assert!(!log.contains("hidden") && !log.contains("secret"), "{log}");
}

#[test]
fn others_reach_it_with_a_key_only() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(&folder.path().join("tiny.gguf"), Tiny::default());
    for (arguments, message) in [
        (&["--host", "0.0.0.0"][..], "other machines can reach"),
        (&["--host", "::"], "other machines can reach"),
        (&["--api-key", ""], "API key"),
        (&["--api-key", "a b"], "API key"),
        (&["--parallel", "0"], "parallel must be from 1"),
        (&["--api-key", "a", "--api-key-file", "key"], "cannot be used with"),
    ] {
        let output = command(folder.path(), arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(message), "{arguments:?}: {text}");
    }
    let process = Process::new(&["--host", "0.0.0.0", "--api-key-file", "key"]);
    let address = process.address.replace("0.0.0.0", "127.0.0.1");
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(&request(
            "GET",
            "/v1/models",
            &[("Host", "my.example"), ("Authorization", "Bearer secret-key-1")],
            b"",
        ))
        .unwrap();
    assert_eq!(Response::read(stream).status, 200);
    let taken = process.address.rsplit(':').next().unwrap().to_owned();
    let output = command(folder.path(), &["--port", &taken]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() != Some(0) && !text.is_empty(), "{text}");
}
