//! Stop strings: ends a text at the first match and never lets a part of a match out.

use crate::{Error, Result};

/// One stop string and how much of it the text ends with (Knuth, Morris and Pratt 1977).
struct Pattern {
    bytes: Box<[u8]>,
    /// `fallback[n]`: length of the longest proper prefix that is also a suffix of the first `n + 1` bytes.
    fallback: Box<[usize]>,
    matched: usize,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let bytes: Box<[u8]> = text.as_bytes().into();
        let mut fallback = vec![0; bytes.len()].into_boxed_slice();
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[at] != bytes[matched] {
                matched = fallback[matched - 1];
            }
            if bytes[at] == bytes[matched] {
                matched += 1;
            }
            fallback[at] = matched;
        }
        Pattern { bytes, fallback, matched: 0 }
    }

    /// Takes the next byte of the text; whether the string is complete. Not called again after a match.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && byte != self.bytes[self.matched] {
            self.matched = self.fallback[self.matched - 1];
        }
        if byte == self.bytes[self.matched] {
            self.matched += 1;
        }
        self.matched == self.bytes.len()
    }
}

/// Holds text back for as long as it may become a stop string.
///
/// The text ends before the match that is complete first; of several complete at the same byte, before the longest. The
/// result therefore does not depend on how the text was cut into pieces.
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for any number of stop strings.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty string, which would match everywhere.
    pub fn new<S: AsRef<str>>(stop: &[S]) -> Result<StopMatcher> {
        if let Some(at) = stop.iter().position(|s| s.as_ref().is_empty()) {
            return Err(Error::Argument(format!("stop string {at} is empty; leave it out or give it text")));
        }
        let patterns = stop.iter().map(|s| Pattern::new(s.as_ref())).collect();
        Ok(StopMatcher { patterns, held: String::new(), stopped: false })
    }

    /// Appends text; gives what is certain not to belong to a stop string. After a match gives nothing any more.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        if self.patterns.is_empty() {
            return piece.to_owned();
        }
        for (at, &byte) in piece.as_bytes().iter().enumerate() {
            // Every pattern takes the byte, so that the longest of several matches is found.
            let matches = self.patterns.iter_mut().filter_map(|p| p.push(byte).then_some(p.bytes.len()));
            if let Some(longest) = matches.max() {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                // Patterns and text are UTF-8, so a match begins and ends between characters.
                text.push_str(&piece[..=at]);
                text.truncate(text.len() - longest);
                return text;
            }
        }
        self.held.push_str(piece);
        let keep = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text that was held back, once no more can come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The end of the text by definition: the first byte at which any string is complete, then the longest one.
    fn expected(text: &str, stop: &[String]) -> Option<usize> {
        (1..=text.len()).filter(|&end| text.is_char_boundary(end)).find_map(|end| {
            let longest = stop.iter().filter(|s| text[..end].ends_with(s.as_str())).map(String::len).max()?;
            Some(end - longest)
        })
    }

    proptest! {
        #[test]
        fn ends_where_the_definition_says_and_leaks_nothing(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stop in prop::collection::vec("[abé]{1,5}", 0..4),
        ) {
            let text = pieces.concat();
            let mut matcher = StopMatcher::new(&stop).unwrap();
            let (mut out, mut seen) = (String::new(), String::new());
            for piece in &pieces {
                out += &matcher.push(piece);
                seen += piece;
                if !matcher.stopped() {
                    // What is held back is the longest end of the text that begins a stop string, and nothing more.
                    let held = (0..=seen.len()).filter(|&at| seen.is_char_boundary(at))
                        .find(|&at| stop.iter().any(|s| s.starts_with(&seen[at..]))).unwrap_or(seen.len());
                    prop_assert_eq!(&out, &seen[..held]);
                }
            }
            let cut = expected(&text, &stop);
            prop_assert_eq!(matcher.stopped(), cut.is_some());
            out += &matcher.finish();
            prop_assert_eq!(&out, &text[..cut.unwrap_or(text.len())]);
        }
    }

    #[test]
    fn overlapping_strings() {
        let cases: [(&[&str], &[&str], &str, bool); 8] = [
            (&["xab", "cd"], &["abcd", "bc"], "xa", true),
            (&["xabc"], &["abc", "bc"], "x", true),
            (&["aab", "aabaaa"], &["aabaaa"], "aab", true),
            (&["a", "b", "a", "b", "c"], &["ababc"], "", true),
            (&["\n", "\n", "x"], &["\n\n\n"], "\n\nx", false),
            (&["one STO"], &["STOP"], "one STO", false),
            (&["ab"], &[], "ab", false),
            (&["ab", "cd"], &["b"], "a", true),
        ];
        for (pieces, stop, expected, stopped) in cases {
            let mut matcher = StopMatcher::new(stop).unwrap();
            let mut out: String = pieces.iter().map(|p| matcher.push(p)).collect();
            out += &matcher.finish();
            assert_eq!((out.as_str(), matcher.stopped()), (expected, stopped), "{pieces:?} with {stop:?}");
        }
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopMatcher::new(&["a", ""]).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("stop string 1 is empty")));
    }
}
