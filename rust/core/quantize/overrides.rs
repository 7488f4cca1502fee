//! Types of single tensors by regular expressions.

use fastq_kernels::Format;
use regex_automata::meta::{Config, Regex};

use super::preset::tensor_format;
use crate::{Error, Result};

/// The most bytes that one expression may become: names are short, and so are the expressions that people write for them.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Expressions over names of tensors, each with a type. The first that occurs anywhere in a name counts.
#[derive(Clone, Default, Debug)]
pub struct Overrides {
    items: Vec<(String, Regex, Format)>,
}

impl Overrides {
    /// Of pairs of an expression (in the syntax of the crate `regex`) and the name of a type.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the expression, and what is wrong with it or with its type.
    pub fn new<A: AsRef<str>, B: AsRef<str>>(pairs: impl IntoIterator<Item = (A, B)>) -> Result<Overrides> {
        let config = Config::new().nfa_size_limit(Some(MAX_REGEX_BYTES));
        let items = pairs.into_iter().map(|(pattern, ty)| {
            let (pattern, ty) = (pattern.as_ref(), ty.as_ref());
            let wrong = |what: String| Error::Argument(format!("override {pattern:?}: {what}"));
            if pattern.is_empty() {
                return Err(wrong("the expression is empty, so every tensor would match".into()));
            }
            let regex = Regex::builder().configure(config.clone()).build(pattern).map_err(|error| {
                let why =
                    error.syntax_error().map_or_else(|| error.to_string(), |syntax| one_line(&syntax.to_string()));
                wrong(format!("not a regular expression: {why}"))
            })?;
            let format = tensor_format(ty).map_err(|error| wrong(error.to_string()))?;
            Ok((pattern.to_owned(), regex, format))
        });
        Ok(Overrides { items: items.collect::<Result<_>>()? })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Expressions and types, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Format)> {
        self.items.iter().map(|(pattern, _, format)| (pattern.as_str(), *format))
    }

    /// Looks names up, and remembers which expressions have matched none.
    pub(super) fn unmatched(&self) -> Unmatched<'_> {
        Unmatched { overrides: self, matched: vec![false; self.items.len()] }
    }
}

/// See [`Overrides::unmatched`].
pub(super) struct Unmatched<'a> {
    overrides: &'a Overrides,
    matched: Vec<bool>,
}

impl Unmatched<'_> {
    /// The type for a tensor, if an expression matches its name.
    pub(super) fn find(&mut self, name: &str) -> Option<Format> {
        let mut found = None;
        for ((_, regex, format), matched) in self.overrides.items.iter().zip(&mut self.matched) {
            // Also behind the first: an expression that an earlier one hides everywhere is no mistyped one.
            if (found.is_none() || !*matched) && regex.is_match(name) {
                *matched = true;
                found = found.or(Some(*format));
            }
        }
        found
    }

    /// An error for an expression that matched nothing: most likely it is mistyped.
    pub(super) fn check(&self) -> Result<()> {
        match self.matched.iter().position(|matched| !matched) {
            None => Ok(()),
            Some(index) => {
                let pattern = &self.overrides.items[index].0;
                Err(Error::Argument(format!(
                    "override {pattern:?} matches no tensor that can be quantized; `fastq inspect --tensors` lists the names"
                )))
            }
        }
    }
}

/// The last line of a message that draws the expression, which is the one that says why.
fn one_line(message: &str) -> String {
    message
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or(message)
        .trim()
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_matches_counts() {
        let overrides =
            Overrides::new([("blk\\.0\\.", "q8_0"), ("attn_v", "Q6-K"), ("blk", "F16")]).expect("three expressions");
        let mut matched = overrides.unmatched();
        assert_eq!(matched.find("blk.0.attn_v.weight"), Some(Format::Q8_0));
        assert_eq!(matched.find("blk.1.attn_v.weight"), Some(Format::Q6_K));
        assert_eq!(matched.find("output.weight"), None);
        assert!(matched.check().is_ok());
    }

    #[test]
    fn faults_are_named() {
        let error = |pairs: &[(&str, &str)]| Overrides::new(pairs.iter().copied()).expect_err("wrong").to_string();
        assert!(error(&[("a(", "q8_0")]).contains("override \"a(\": not a regular expression: unclosed group"));
        assert!(error(&[("a", "q9")]).contains("override \"a\": unknown type \"q9\""));
        assert!(error(&[("", "q8_0")]).contains("empty"));
        assert!(error(&[("(a{1000}){1000}", "q8_0")]).contains("not a regular expression"));
        let overrides = Overrides::new([("attn_vv", "q8_0")]).expect("an expression");
        let mut matched = overrides.unmatched();
        matched.find("blk.0.attn_v.weight");
        assert!(matched.check().expect_err("no match").to_string().contains("\"attn_vv\" matches no tensor"));
    }
}
