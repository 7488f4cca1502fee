//! Grammars: what an answer must match, as a set of allowed tokens before every token.
//!
//! A [`Grammar`] is made from a JSON schema, a regular expression, a list of choices, or a grammar in GBNF or Lark, once, for the
//! vocabulary of a model; a [`Matcher`] is the state of one answer under it. The sets are computed by llguidance: an Earley parser
//! over lexemes that are regular expressions (derivatives, built as they are needed), run over the trie of all tokens. What is here
//! brings a source into the form that llguidance reads without changing what it means, refuses what llguidance would ignore, and
//! bounds size, depth, time and memory: sources are hostile.

mod gbnf;
mod lark;
mod matcher;
mod regex;
mod schema;
mod vocabulary;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use llguidance::api::{GrammarInit, ParserLimits, StopReason, TopLevelGrammar};
use llguidance::panic_utils::catch_unwind;
use llguidance::{Logger, TokenParser};

use crate::{Error, Model, Result};
use schema::Spaces;

pub use matcher::Matcher;
pub use vocabulary::GrammarVocabulary;

/// Bytes of a source at most: of a text, or of a schema written as JSON.
pub const MAX_SOURCE: usize = 1 << 20;

/// The stack for compiling: recursion follows the nesting and the length of what was written, both of which are bounded.
const STACK: usize = if cfg!(target_pointer_width = "32") { 32 << 20 } else { 256 << 20 };

/// Compiling takes milliseconds. The limits below stop what takes long; this is for what they do not see.
const MAX_SECONDS: u64 = 20;

/// One mask takes less than a millisecond, and at most this.
const MAX_MASK: Duration = Duration::from_secs(5);

/// Bytes of a message of llguidance, which repeats lines of the source, that are passed on.
const MAX_MESSAGE: usize = 1_000;

/// Grammars that are compiled at once at most. One that takes too long is left behind, and still counts until a limit ends it.
const MAX_COMPILING: usize = 8;

/// Grammars that are being compiled.
static COMPILING: AtomicUsize = AtomicUsize::new(0);

/// Counts one grammar that is being compiled, until it is dropped.
struct Compiling;

impl Compiling {
    fn begin() -> Result<Compiling> {
        let begun = COMPILING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < MAX_COMPILING).then_some(count + 1));
        begun.map(|_| Compiling).map_err(|count| {
            Error::Grammar(format!("{count} grammars are being compiled already, which take long; try again later"))
        })
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        COMPILING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the work of llguidance is bounded by; fuel is its measure of work on regular expressions.
fn limits() -> ParserLimits {
    ParserLimits {
        // How many ways of reading the text may be open at once.
        max_items_in_row: 4_000,
        initial_lexer_fuel: 1_000_000,
        // For one mask. Items are cheap, and grammars of single characters need many.
        step_lexer_fuel: 200_000,
        step_max_items: 500_000,
        // One to two KiB each, so that an answer has some 100 MiB at most (by default 500).
        max_lexer_states: 50_000,
        max_grammar_size: 500_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// What an answer must match.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// JSON that is valid under this JSON Schema.
    JsonSchema(serde_json::Value),
    /// Text that this regular expression matches as a whole.
    Regex(String),
    /// Exactly one of these texts.
    Choices(Vec<String>),
    /// Text that the rule `root` of this GBNF grammar (that of llama.cpp) derives.
    Gbnf(String),
    /// Text that the rule `start` of this Lark grammar (in llguidance's dialect) derives.
    Lark(String),
}

/// A grammar compiled for the vocabulary of one model. Cheap to clone; answers under it do not share anything that changes.
#[derive(Clone)]
pub struct Grammar {
    inner: Arc<Inner>,
}

struct Inner {
    /// Never advanced; every answer begins with a copy.
    start: TokenParser,
    vocabulary: Arc<GrammarVocabulary>,
}

impl Grammar {
    /// Compiles `source` for the vocabulary of `model`. The vocabulary is prepared when the first grammar is made.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the source is invalid (with line and column, or the place in the schema), uses what is not supported
    /// (naming the keyword), matches no text, or exceeds a limit.
    pub fn new(model: &Model, source: &GrammarSource) -> Result<Grammar> {
        model.grammar_vocabulary()?.compile(source)
    }

    /// A Lark grammar whose JSON has the white space of calls of tools.
    ///
    /// # Errors
    /// As [`Grammar::new`].
    pub(crate) fn of_calls(model: &Model, lark: &str) -> Result<Grammar> {
        let grammar = lark::prepare(lark, Spaces::Fixed)?;
        model.grammar_vocabulary()?.compile_translated(TopLevelGrammar::from_lark(grammar))
    }

    /// The state at the beginning of an answer.
    pub fn matcher(&self) -> Matcher {
        // A copy of its own, lexer included: limits then count per answer, and a long-lived grammar does not grow.
        Matcher::new(self.inner.start.deep_clone(), Arc::clone(&self.inner.vocabulary))
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// The same grammar, not one that matches the same texts.
impl PartialEq for Grammar {
    fn eq(&self, other: &Grammar) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl GrammarVocabulary {
    /// As [`Grammar::new`], for a vocabulary without a model.
    ///
    /// # Errors
    /// As [`Grammar::new`].
    pub fn compile(self: &Arc<Self>, source: &GrammarSource) -> Result<Grammar> {
        self.compile_translated(self.translate(source)?)
    }

    fn compile_translated(self: &Arc<Self>, grammar: TopLevelGrammar) -> Result<Grammar> {
        let vocabulary = Arc::clone(self);
        let (sender, receiver) = sync_channel(1);
        let compiling = Compiling::begin()?;
        let compile = move || {
            let _compiling = compiling;
            // Nobody waits any more when this fails.
            let _ = sender.send(vocabulary.start(grammar));
        };
        let thread = std::thread::Builder::new().name("fastq-grammar".into()).stack_size(STACK).spawn(compile);
        thread.map_err(|error| Error::Grammar(format!("no thread to compile the grammar: {error}")))?;
        let start = match receiver.recv_timeout(Duration::from_secs(MAX_SECONDS)) {
            Ok(start) => start.map_err(Error::Grammar)?,
            Err(RecvTimeoutError::Timeout) => return Err(too_long()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Grammar("the grammar could not be compiled; make it simpler".into()));
            }
        };
        Ok(Grammar { inner: Arc::new(Inner { start, vocabulary: Arc::clone(self) }) })
    }

    /// The source in the form that llguidance reads.
    fn translate(&self, source: &GrammarSource) -> Result<TopLevelGrammar> {
        match source {
            GrammarSource::JsonSchema(schema) => {
                Ok(TopLevelGrammar::from_json_schema(schema::prepare(schema, Spaces::Usual)?))
            }
            GrammarSource::Regex(expression) => Ok(TopLevelGrammar::from_lark(regex::to_lark(expression)?)),
            GrammarSource::Choices(choices) => Ok(TopLevelGrammar::from_lark(regex::choices_to_lark(choices)?)),
            GrammarSource::Gbnf(text) => {
                let token = |name: &str| self.token(name);
                Ok(TopLevelGrammar::from_lark(gbnf::to_lark(check_size("gbnf", text)?, &token)?))
            }
            GrammarSource::Lark(text) => Ok(TopLevelGrammar::from_lark(lark::prepare(text, Spaces::Usual)?)),
        }
    }

    /// The parser at the beginning of a text; catches panics.
    fn start(&self, grammar: TopLevelGrammar) -> Result<TokenParser, String> {
        let factory = self.factory();
        let parser = factory.create_parser_from_init_ext(
            GrammarInit::Serialized(grammar),
            Logger::new(0, 0),
            Default::default(),
            limits(),
        );
        let mut parser = parser.map_err(|error| told(&error))?;
        parser.start_without_prompt();
        let handle = parser.enable_cancellation();
        let _watched = watch::watch(&handle, MAX_MASK);
        // A grammar without any text is a mistake that is better told now than at the first token; and every answer needs this mask.
        catch_unwind(AssertUnwindSafe(|| parser.compute_mask())).map_err(|error| match parser.stop_reason() {
            StopReason::NoExtensionBias => "the grammar matches no text that the vocabulary can write".to_owned(),
            StopReason::Cancelled => too_slow(),
            _ => told(&error),
        })?;
        Ok(parser)
    }
}

fn too_long() -> Error {
    Error::Grammar(format!("compiling the grammar took more than {MAX_SECONDS} seconds; make it simpler"))
}

fn too_slow() -> String {
    format!("the next token takes more than {} seconds to find; make the grammar simpler", MAX_MASK.as_secs())
}

fn check_size<'t>(what: &str, text: &'t str) -> Result<&'t str> {
    match text.len() {
        0..=MAX_SOURCE => Ok(text),
        found => Err(Error::Grammar(format!("{what} must have at most {MAX_SOURCE} bytes, found {found}"))),
    }
}

/// An error of llguidance without the traces that it appends.
fn told(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    let text = whole.split("\n<").next().unwrap_or_default().trim();
    let end = text.floor_char_boundary(MAX_MESSAGE);
    let text = &text[..end];
    text.strip_prefix("panic: ").map_or_else(|| text.to_owned(), |panic| format!("the grammar cannot be read: {panic}"))
}
