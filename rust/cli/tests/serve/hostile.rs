//! What clients do that mean harm, or are just unlucky.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastq_cli::serve::{Limits, ServeOptions};
use fastq_core::sampler::philox::uniform;
use serde_json::{Value, json};

use crate::client::{LONG_NAME, Response, Server, begin, request};

/// A completion of `n` answers that are as long as the context has room for.
fn long(n: usize, stream: bool) -> Value {
    json!({ "prompt": "abc", "n": n, "max_tokens": 250, "ignore_eos": true, "stream": stream, "seed": 5 })
}

/// With events so long that an answer does not fit what sockets hold.
fn named() -> ServeOptions {
    ServeOptions { alias: Some(LONG_NAME.clone()), ..ServeOptions::default() }
}

fn quick() -> ServeOptions {
    let limits = Limits {
        header_time: Duration::from_millis(400),
        body_time: Duration::from_millis(600),
        stall_time: Duration::from_millis(600),
        ..Limits::default()
    };
    ServeOptions { limits, ..named() }
}

#[test]
fn only_those_may_ask_who_may() {
    let server =
        Server::new(ServeOptions { origins: vec!["https://friend.example".into()], ..ServeOptions::default() });
    let with = |headers: &[(&str, &str)]| server.request("GET", "/v1/models", headers, b"");
    let port = server.address.port();
    for host in ["localhost".into(), format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".into()] {
        assert_eq!(with(&[("Host", &host)]).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1"] {
        assert_eq!(with(&[("Host", host)]).status, 403, "{host}");
    }
    assert_eq!(server.raw(b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400);
    assert_eq!(server.raw(b"GET /v1/models HTTP/1.0\r\n\r\n").status, 400);
    assert_eq!(with(&[("Host", "localhost"), ("Host", "evil.example")]).status, 400);
    let own = format!("http://localhost:{port}");
    assert_eq!(with(&[("Host", &format!("localhost:{port}")), ("Origin", &own)]).status, 200);
    for origin in
        ["http://evil.example", "null", "http://localhost:1", "https://friend.example.evil.example", "file://"]
    {
        let refused = with(&[("Host", &format!("localhost:{port}")), ("Origin", origin)]);
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None), "{origin}");
    }
    let friend = with(&[("Origin", "https://friend.example")]);
    assert_eq!((friend.status, friend.header("access-control-allow-origin")), (200, Some("https://friend.example")));
    let asked = server.request("OPTIONS", "/v1/chat/completions", &[("Origin", "https://friend.example")], b"");
    assert_eq!(
        (asked.status, asked.header("access-control-allow-headers")),
        (204, Some("authorization, content-type"))
    );
}

#[test]
fn a_key_is_needed_where_there_is_one() {
    let key = "k-".repeat(100);
    let server = Server::new(ServeOptions { api_key: Some(key.clone()), ..ServeOptions::default() });
    let with = |headers: &[(&str, &str)]| server.request("GET", "/v1/models", headers, b"").status;
    assert_eq!(with(&[("Authorization", &format!("Bearer {key}"))]), 200);
    let wrong = [
        "".into(),
        key.clone(),
        format!("Bearer {key}x"),
        format!("Bearer {}", &key[1..]),
        "Bearer ".into(),
        format!("Bearer {}", "x".repeat(20_000)),
    ];
    for value in wrong {
        assert_eq!(with(&[("Authorization", &value)]), 401, "{value:.20}");
    }
    let missing = server.get("/v1/models");
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer")));
    for (method, path) in
        [("POST", "/v1/chat/completions"), ("POST", "/v1/responses"), ("POST", "/tokenize"), ("GET", "/metrics")]
    {
        assert_eq!(server.request(method, path, &[], b"{}").status, 401, "{path}");
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
}

#[test]
fn what_is_no_http_or_no_json_is_refused() {
    let server = Server::new(ServeOptions::default());
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let heads: [(&[u8], &[u16]); 8] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400, 0]),
        (b"GET / HTTP/9.9\r\n\r\n", &[400, 0]),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", &[400, 404, 0]),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", &[400]),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", &[400]),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", &[400]),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", &[400]),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").leak().as_bytes(), &[431]),
    ];
    for (bytes, expected) in heads {
        let response = server.raw(bytes);
        assert!(
            expected.contains(&response.status),
            "{:?}: {response:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }
    let wide = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000));
    assert!([414, 431].contains(&server.raw(wide.as_bytes()).status));
    for path in
        ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize"]
    {
        let post = |body: &[u8]| server.request("POST", path, &[], body);
        for body in [
            &b""[..],
            b"{",
            b"5",
            b"[]",
            b"null",
            b"\xff\xfe",
            b"{\"a\": \"\xff\"}",
            b"{}",
            b"{\"prompt\": {}}",
            b"{} {}",
        ] {
            assert_eq!(post(body).status, 400, "{path} {:?}", String::from_utf8_lossy(body));
        }
        let start = Instant::now();
        assert_eq!(post("[".repeat(10_000_000).as_bytes()).status, 413, "{path}");
        let deep = post("[".repeat(8_000_000).as_bytes());
        assert!(deep.status == 400 && deep.body.contains("nested"), "{path}: {deep:?}");
        let objects = post("{\"a\":".repeat(1_500_000).as_bytes());
        assert!(objects.status == 400 && objects.body.contains("nested"), "{path}: {objects:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn bodies_without_end_are_cut_off() {
    let server = Server::new(ServeOptions::default());
    let huge = server.raw(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n{");
    assert_eq!(huge.status, 413);
    let mut stream = server.connect();
    stream.write_all(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n", " ".repeat(0x10000).as_bytes(), b"\r\n"].concat();
    let sent = (0..10_000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 10_000, "655 MB were read");
    let mut short = server.connect();
    short.write_all(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"content\"").unwrap();
    short.shutdown(Shutdown::Write).unwrap();
    assert!([0, 400].contains(&Response::read(short).status));
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn who_sends_slowly_loses_the_connection() {
    let server = Server::new(quick());
    // Longer than the header time as a whole, though never long between two bytes.
    let drip = |head: &[u8], body: &[u8], pause: Duration| {
        let mut stream = server.connect();
        stream.write_all(head).unwrap();
        for byte in body {
            std::thread::sleep(pause);
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        Response::read(stream).status
    };
    let pause = Duration::from_millis(50);
    let start = Instant::now();
    let slow: Vec<u16> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..100 {
            threads.push(scope.spawn(|| drip(b"GET /", " HTTP/1.1\r\nHost: localhost\r\n".as_bytes(), pause)));
        }
        for _ in 0..20 {
            let head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 30\r\n\r\n";
            threads.push(scope.spawn(|| drip(head, "{\"content\": \"abcdefghijklmno\"}".as_bytes(), pause)));
        }
        // Beside them, others are answered.
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(server.post("/tokenize", &json!({ "content": "abc" })).status, 200);
            assert!(asked.elapsed() < Duration::from_secs(5));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(slow[..100].iter().all(|status| [0, 408].contains(status)), "{slow:?}");
    assert!(slow[100..].iter().all(|status| *status == 408), "{slow:?}");
    assert!(start.elapsed() < Duration::from_secs(30));
    // A connection on which nothing is asked is closed, too.
    let mut idle = server.connect();
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
    server.wait_for("fastq_connections", |count| count == 1.0);
}

#[test]
fn who_does_not_read_loses_the_connection() {
    let server = Server::new(quick());
    let stream = begin(server.address);
    server.wait_for("fastq_requests_running", |count| count == 1.0);
    server.wait_for("fastq_requests_abandoned_total", |count| count == 1.0);
    server.wait_for("fastq_requests_running", |count| count == 0.0);
    drop(stream);
}

#[test]
fn a_client_that_goes_stops_its_answer() {
    let server = Server::new(ServeOptions { parallel: 1, ..ServeOptions::default() });
    for streamed in [true, false] {
        let mut stream = server.connect();
        stream.write_all(&request("POST", "/v1/completions", &[], long(64, streamed).to_string().as_bytes())).unwrap();
        server.wait_for("fastq_requests_running", |count| count == 1.0);
        let waits = std::thread::scope(|scope| {
            // One that waits and goes is no longer counted, and does not stop the one that is computed.
            let mut waiting = server.connect();
            waiting.write_all(&request("POST", "/v1/completions", &[], long(1, false).to_string().as_bytes())).unwrap();
            server.wait_for("fastq_requests_waiting", |count| count == 1.0);
            drop(waiting);
            server.wait_for("fastq_requests_waiting", |count| count == 0.0);
            assert_eq!(server.metric("fastq_requests_running"), 1.0);
            let next = scope.spawn(|| server.post("/v1/completions", &long(1, false)).status);
            server.wait_for("fastq_requests_waiting", |count| count == 1.0);
            drop(stream);
            let gone = Instant::now();
            assert_eq!(next.join().unwrap(), 200);
            gone.elapsed()
        });
        assert!(waits < Duration::from_secs(5), "{waits:?}");
    }
    // 64 × 250 tokens were asked for, twice.
    assert!(server.metric("fastq_answer_tokens_total") < 20_000.0);
}

#[test]
fn five_hundred_disconnects_harm_nobody() {
    let server = Server::new(ServeOptions { parallel: 4, queue: 1000, ..ServeOptions::default() });
    let expected = server.post("/v1/completions", &long(1, true)).events();
    let texts = |events: &[Value]| events.iter().map(|e| e["choices"][0]["text"].clone()).collect::<Vec<_>>();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(texts(&server.post("/v1/completions", &long(1, true)).events()), texts(&expected));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut leavers = Vec::new();
        for thread in 0..5u64 {
            let server = &server;
            leavers.push(scope.spawn(move || {
                for time in 0..100u64 {
                    let draw = |what| uniform(thread * 3 + what, time);
                    let bytes = request("POST", "/v1/completions", &[], long(2, draw(0) < 0.5).to_string().as_bytes());
                    let mut stream = server.connect();
                    // Some go before they have asked.
                    let end = if draw(1) < 0.2 { (bytes.len() as f64 * draw(2)) as usize } else { bytes.len() };
                    stream.write_all(&bytes[..end]).unwrap();
                    std::thread::sleep(Duration::from_micros((draw(2) * 30_000.0) as u64));
                }
            }));
        }
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) >= 2);
    server.wait_for("fastq_requests_running", |count| count == 0.0);
    server.wait_for("fastq_connections", |count| count == 1.0);
    assert_eq!(server.metric("fastq_requests_total{status=\"5xx\"}"), 0.0);
}

#[test]
fn a_full_queue_says_so() {
    let server = Server::new(ServeOptions { parallel: 2, queue: 16, ..named() });
    // Both places are taken until the streams are let go.
    let holders: Vec<_> = (0..2).map(|_| begin(server.address)).collect();
    let (refused, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let response = server.post("/v1/completions", &json!({ "prompt": "a", "max_tokens": 2 }));
                let count = match response.status {
                    200 => &answered,
                    429 => {
                        assert_eq!(response.header("retry-after"), Some("1"));
                        assert_eq!(response.json()["error"]["code"], "queue_full");
                        &refused
                    }
                    _ => panic!("{response:?}"),
                };
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        let start = Instant::now();
        while refused.load(Ordering::Relaxed) < 84 && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(holders);
    });
    assert_eq!((answered.into_inner(), refused.into_inner()), (16, 84));
}

#[test]
fn at_the_end_streams_go_on_and_then_are_told() {
    for (grace, ends) in [(Duration::from_secs(60), false), (Duration::ZERO, true)] {
        let server = Server::new(ServeOptions { grace, parallel: 1, ..named() });
        let mut reader = begin(server.address);
        let mut waiting = server.connect();
        waiting.write_all(&request("POST", "/v1/completions", &[], long(1, false).to_string().as_bytes())).unwrap();
        server.wait_for("fastq_requests_waiting", |count| count == 1.0);
        server.stop();
        assert_eq!(Response::read(waiting).status, 503);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let last: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("data: ")).rev().take(2).collect();
        assert_eq!(last[0], "[DONE]");
        assert_eq!(last[1].contains("shutting_down"), ends, "{last:?}");
        assert!(TcpStream::connect(server.address).is_err(), "it listens no more");
    }
}
