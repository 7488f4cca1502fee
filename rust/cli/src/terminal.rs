//! Writing to stdout and stderr: closed streams, colours, figures for people.

use std::io::{self, IsTerminal, Write};

use fastq_core::Error;

/// Why a command ended early.
pub(crate) enum Failure {
    /// Whoever read stdout has gone (`fastq … | head`): nothing to report.
    Closed,
    /// Ctrl-C.
    Interrupted,
    /// What to say after `error:`.
    Error(String),
    /// A combination of arguments that cannot be.
    Usage(String),
}

/// A command's result.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Cancelled => Failure::Interrupted,
            error => Failure::Error(error.to_string()),
        }
    }
}

/// Writes an answer to stdout and flushes it.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Error(format!("cannot write to stdout: {error}")),
    })
}

/// Writes a line to stdout.
pub(crate) fn print_line(text: &str) -> Outcome {
    print(&format!("{text}\n"))
}

/// Writes a JSON document to stdout, indented for people.
pub(crate) fn print_json(value: &serde_json::Value) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Error(format!("cannot write JSON: {e}")))?;
    print_line(&text)
}

/// Writes a line to stderr. A closed stderr leaves nowhere to complain to.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stderr takes colours: a terminal that is not dumb, and no `NO_COLOR` (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` in an ANSI style when stderr takes colours.
pub(crate) fn style(code: &str, text: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A message on one line, without control characters: parts of it may come from a file.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

pub(crate) use fastq_core::memory::human as bytes;

/// A number of things with K, M, B.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// Seconds in a unit that suits them.
pub(crate) fn seconds(s: f64) -> String {
    if s < 1e-3 {
        format!("{:.0} µs", s * 1e6)
    } else if s < 1.0 {
        format!("{:.1} ms", s * 1e3)
    } else {
        format!("{s:.2} s")
    }
}

/// `n` per second, or `None` when no time passed.
pub(crate) fn rate(n: usize, seconds: f64) -> Option<f64> {
    (n > 0 && seconds > 0.0).then(|| n as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, 98_362_432, 1 << 40, u64::MAX].map(bytes);
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "93.8 MiB", "1.0 TiB", "16777216.0 TiB"];
        assert_eq!(sizes, expected);
        assert_eq!([999, 1_000, 134_515_008, 1_235_814_400].map(count), ["999", "1.0 K", "134.5 M", "1.24 B"]);
        assert_eq!([2e-6, 0.0125, 3.0].map(seconds), ["2 µs", "12.5 ms", "3.00 s"]);
        assert_eq!((rate(10, 2.0), rate(0, 2.0), rate(10, 0.0)), (Some(5.0), None, None));
    }

    #[test]
    fn messages_stay_on_one_line_and_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\nb\x1b[2Jé\u{9b}"), "a\\nb\\u{1b}[2Jé\\u{9b}");
    }
}
