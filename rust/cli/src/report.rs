//! What commands tell about an answer and a model.

use fastq_core::Model;
use fastq_core::generate::{Completion, Timings};
use serde_json::{Value, json};

use crate::terminal::{self, rate, seconds};

/// `12 prompt tokens in 40.1 ms (299.3 tokens/s), 30 tokens in 0.50 s (58.0 tokens/s)`.
pub(crate) fn timings(t: &Timings) -> String {
    let per_second = |n, s| rate(n, s).map(|r| format!(" ({r:.1} tokens/s)")).unwrap_or_default();
    format!(
        "prompt {} tokens in {}{}, answer {} more in {}{}",
        t.prefill_tokens,
        seconds(t.prefill_seconds),
        per_second(t.prefill_tokens, t.prefill_seconds),
        t.decode_tokens,
        seconds(t.decode_seconds),
        per_second(t.decode_tokens, t.decode_seconds),
    )
}

/// Says on stderr what the memory plan warns of.
pub(crate) fn warn(model: &Model) {
    if let Some(warning) = &model.plan().warning {
        terminal::note(&format!("{} {}", terminal::style("1;33", "warning:"), terminal::one_line(warning)));
    }
}

/// An answer as a JSON object.
pub(crate) fn completion(c: &Completion, load_seconds: f64, seed: u64) -> Value {
    let t = &c.timings;
    json!({
        "text": c.text,
        "tokens": c.tokens,
        "finish_reason": c.finish_reason.name(),
        "usage": {
            "prompt_tokens": c.prompt_tokens,
            "completion_tokens": c.tokens.len(),
            "total_tokens": c.prompt_tokens + c.tokens.len(),
        },
        "timings": {
            "load_seconds": load_seconds,
            "prefill_tokens": t.prefill_tokens,
            "prefill_seconds": t.prefill_seconds,
            "prefill_tokens_per_second": rate(t.prefill_tokens, t.prefill_seconds),
            "decode_tokens": t.decode_tokens,
            "decode_seconds": t.decode_seconds,
            "decode_tokens_per_second": rate(t.decode_tokens, t.decode_seconds),
            "peak_rss_bytes": fastq_core::machine::peak_rss_bytes(),
        },
        "seed": seed,
    })
}

/// Median and spread of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistics {
    /// The middle value, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Statistics {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Option<Statistics> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Statistics { median, min, max })
    }

    /// As a JSON object.
    pub(crate) fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// Rows as aligned columns; numbers (as they look) to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(header[column].chars().count())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> = (0..header.len())
        .map(|column| !rows.is_empty() && rows.iter().all(|row| row.get(column).is_none_or(|cell| numeric(cell))))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.enumerate().map(|(column, cell)| {
            let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if right[column] { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let of = |values: &[f64]| Statistics::of(values).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn columns() {
        let rows = vec![vec!["é".to_owned(), "7".to_owned()], vec!["long".to_owned(), "12".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name   n\né      7\nlong  12");
    }
}
