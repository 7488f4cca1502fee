//! Chat templates: the Jinja template of a file, run by minijinja with limits.
//!
//! A template is code from an untrusted file. It sees the messages and nothing else: no files, no other templates, no attributes
//! of the host. Instructions, recursion, output and time are limited, and it runs on a thread of its own with a known stack.
//!
//! Not limited is the memory of values inside a rendering (minijinja has no hook for that): a template that doubles a string 35
//! times asks for 32 GiB.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, State};
use serde_json::Map;

use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

const TEMPLATE: &str = "tokenizer.chat_template";

/// Longest template, in bytes; the longest known one has 30,000.
pub const MAX_SOURCE: usize = 1 << 20;
/// Longest text that a template may produce, in bytes.
pub const MAX_OUTPUT: usize = 4 << 20;
/// Instructions that one rendering may take; a conversation of 10,000 messages takes about 1,000,000.
pub const FUEL: u64 = 10_000_000;
/// Nested calls of macros.
pub const MAX_RECURSION: usize = 100;
/// Time that one rendering may take.
pub const MAX_TIME: Duration = Duration::from_secs(5);
/// Nesting of the messages and of what `tojson` writes.
pub const MAX_DEPTH: usize = 64;
/// Tokens inside one pair of `{{ }}` or `{% %}`. A chain of operators becomes a tree as deep as it is long, which minijinja walks
/// by recursion; its own limit covers nesting only.
pub const MAX_TAG_TOKENS: usize = 2048;
/// `elif` in one template: each is nested in the one before.
pub const MAX_ELIF: usize = 512;
/// Widest indentation.
pub const MAX_INDENT: usize = 1024;
/// Stack of the thread that compiles and renders: several times what [`MAX_RECURSION`] and the parser's own limit need.
const STACK: usize = 16 << 20;

/// A chat template with the tokens it may use.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: Arc<str>,
    bos: Arc<str>,
    eos: Arc<str>,
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are what it knows as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Template`] naming the line when it is not valid, and when it is longer than [`MAX_SOURCE`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        let template = ChatTemplate::unchecked(source, bos, eos)?;
        let source = template.source.clone();
        run(move || compile(&source).map(|_| String::new()))?;
        Ok(template)
    }

    /// The template of `file`, `None` when it has none or an empty one. Its syntax is checked when it is first used, so that a
    /// model with a broken template still completes text.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is not a string of UTF-8, [`Error::Template`] when it is longer than [`MAX_SOURCE`].
    pub fn from_gguf(file: &Gguf, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        match file.str(TEMPLATE)? {
            None => Ok(None),
            Some(source) if source.trim().is_empty() => Ok(None),
            Some(source) => ChatTemplate::unchecked(source, &text(tokenizer.bos()), &text(tokenizer.eos())).map(Some),
        }
    }

    fn unchecked(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE {
            let what = format!("chat template must have at most {MAX_SOURCE} bytes, found {}", source.len());
            return Err(Error::Template(what));
        }
        Ok(ChatTemplate { source: source.into(), bos: bos.into(), eos: eos.into() })
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Writes `messages` (objects with `role`, `content` and whatever else the template uses) as the model expects them. `tools`
    /// is a list of function descriptions; `extra` holds further variables and wins over the standard ones.
    ///
    /// # Errors
    /// [`Error::Template`] with the line: what the template says is wrong with the messages (`raise_exception`), a mistake in
    /// the template, or a limit.
    pub fn render(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        extra: &Map<String, serde_json::Value>,
    ) -> Result<String> {
        let messages = messages.iter().map(|message| value(message, MAX_DEPTH)).collect::<Result<Vec<_>>>()?;
        let mut variables = vec![
            ("messages".to_owned(), Value::from(messages)),
            ("tools".to_owned(), tools.map_or(Ok(Value::from(())), |tools| value(tools, MAX_DEPTH))?),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
            ("bos_token".to_owned(), Value::from(&*self.bos)),
            ("eos_token".to_owned(), Value::from(&*self.eos)),
        ];
        for (name, given) in extra {
            variables.push((name.clone(), value(given, MAX_DEPTH)?));
        }
        let source = self.source.clone();
        run(move || {
            let environment = compile(&source)?;
            let template = environment.get_template(NAME).map_err(describe)?;
            let mut output = Limited(Vec::new());
            template.render_captured_to(Value::from_pairs(variables), &mut output).map_err(describe)?;
            String::from_utf8(output.0)
                .map_err(|_| Error::Template("chat template wrote text that is not UTF-8".to_owned()))
        })
    }
}

/// What the template is called in messages.
const NAME: &str = "chat template";

/// An environment that holds the template and what templates of models expect to find.
fn compile(source: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    let syntax = syntax.build().map_err(describe)?;
    check_chains(source, syntax.clone())?;
    let source = without_generation(source, syntax.clone());
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.add_filter("indent", indent);
    environment.add_test("iterable", is_iterable);
    environment.add_template_owned(NAME, source).map_err(describe)?;
    Ok(environment)
}

/// Refuses chains that would overflow the stack. Mistakes are left to the compiler, which describes them better.
fn check_chains(source: &str, syntax: SyntaxConfig) -> Result<()> {
    let (mut tokens, mut elifs) = (0, 0);
    for (token, span) in tokenize(source, false, syntax).map_while(|token| token.ok()) {
        match token {
            Token::VariableStart | Token::BlockStart => tokens = 0,
            Token::Ident("elif") if tokens == 0 => elifs += 1,
            _ => tokens += 1,
        }
        if tokens > MAX_TAG_TOKENS || elifs > MAX_ELIF {
            let line = span.start_line;
            let what = format!(
                "{NAME} line {line}: a tag must have at most {MAX_TAG_TOKENS} tokens, a template {MAX_ELIF} `elif`"
            );
            return Err(Error::Template(what));
        }
    }
    Ok(())
}

/// The template without `{% generation %}` and its end, which mark what is trained on and write nothing. Tags that do nothing take
/// their place, so that lines and the white space that tags remove stay as they are.
fn without_generation(source: &str, syntax: SyntaxConfig) -> String {
    let (mut rewritten, mut copied, mut in_tag) = (String::with_capacity(source.len()), 0, true);
    for (token, span) in tokenize(source, false, syntax).map_while(|token| token.ok()) {
        let instead = match token {
            Token::Ident("generation") if !in_tag => "if true",
            Token::Ident("endgeneration") if !in_tag => "endif",
            _ => "",
        };
        if !instead.is_empty() {
            rewritten.push_str(&source[copied..span.start_offset as usize]);
            rewritten.push_str(instead);
            copied = span.end_offset as usize;
        }
        in_tag = !matches!(token, Token::BlockStart);
    }
    rewritten.push_str(&source[copied..]);
    rewritten
}

/// Runs `work` on a thread with a known stack, for [`MAX_TIME`]. A thread that takes longer is left alone: it ends when its fuel
/// does.
fn run(work: impl FnOnce() -> Result<String> + Send + 'static) -> Result<String> {
    let (sender, receiver) = channel();
    let work = move || {
        // Nobody listens any more when the time is over.
        let _ = sender.send(work());
    };
    let spawned = std::thread::Builder::new().name("fastq-template".to_owned()).stack_size(STACK).spawn(work);
    let thread =
        spawned.map_err(|error| Error::Memory(format!("cannot start a thread for the chat template: {error}")))?;
    match receiver.recv_timeout(MAX_TIME) {
        Ok(result) => {
            // The result is there, so this waits for the end of the thread only.
            let _ = thread.join();
            result
        }
        Err(RecvTimeoutError::Timeout) => {
            Err(Error::Template(format!("chat template must finish within {} seconds", MAX_TIME.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => Err(Error::Internal("the chat template engine failed".to_owned())),
    }
}

/// Collects output up to [`MAX_OUTPUT`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("it writes more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line: where, what, and why.
fn describe(error: minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" line {line}")).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {FUEL} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::Template(format!("{NAME}{line}: {what}{cause}"))
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The present time, formatted as by C's `strftime`.
fn strftime_now(state: &State<'_, '_>, format: String) -> Result<String, minijinja::Error> {
    let format = Kwargs::from_iter([("format", Value::from(format))]);
    minijinja_contrib::filters::datetimeformat(state, minijinja_contrib::globals::now(), format)
}

/// JSON as a value of the template; maps keep their order.
fn value(json: &serde_json::Value, depth: usize) -> Result<Value> {
    let Some(below) = depth.checked_sub(1) else {
        return Err(Error::Template(format!("messages and tools must not nest deeper than {MAX_DEPTH}")));
    };
    Ok(match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => {
            Value::from(items.iter().map(|item| value(item, below)).collect::<Result<Vec<_>>>()?)
        }
        serde_json::Value::Object(map) => {
            let pairs = map.iter().map(|(key, item)| Ok((Value::from(key.as_str()), value(item, below)?)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>>>()?)
        }
    })
}

/// Spaces in front of every line, as Jinja2 puts them: minijinja drops a line feed at the end.
fn indent(
    text: &str,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    arguments: Kwargs,
) -> Result<String, minijinja::Error> {
    let flag = |given: Option<bool>, name: &str| match given {
        Some(flag) => Ok(flag),
        None => arguments.get::<Option<bool>>(name).map(|flag| flag.unwrap_or(false)),
    };
    let (first, blank) = (flag(first, "first")?, flag(blank, "blank")?);
    let width = width.or(arguments.get("width")?).unwrap_or(4);
    arguments.assert_all_used()?;
    if width > MAX_INDENT {
        let what = format!("indent: the width must be at most {MAX_INDENT}, found {width}");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, what));
    }
    let mut indented = String::with_capacity(text.len() + width);
    for (number, line) in text.split('\n').enumerate() {
        indented.push_str(if number == 0 { "" } else { "\n" });
        let wanted = if number == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            indented.extend(std::iter::repeat_n(' ', width));
        }
        indented.push_str(line);
    }
    Ok(indented)
}

/// What Python can loop over; minijinja counts `none`, too.
fn is_iterable(given: &Value) -> bool {
    !matches!(given.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Invalid)
}

/// `json.dumps(value, …)` with the arguments of Python, but that `ensure_ascii` is false when nothing is said: what templates were
/// written for.
fn to_json(given: &Value, arguments: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.as_str(), colon.as_str()),
        Some(_) => return Err(not_json("separators must be two strings")),
        None => (if indent.is_some() { "," } else { ", " }, ": "),
    };
    let writer = JsonWriter {
        indent: indent.map(|indent| indent.min(16)),
        comma,
        colon,
        ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    let mut json = String::new();
    writer.write(given, 0, &mut json)?;
    Ok(Value::from(json))
}

fn not_json(what: &str) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"))
}

/// How JSON is written.
struct JsonWriter<'a> {
    indent: Option<usize>,
    comma: &'a str,
    colon: &'a str,
    /// Other characters are written as `\uXXXX`.
    ascii: bool,
    sorted: bool,
}

impl JsonWriter<'_> {
    fn write(&self, given: &Value, depth: usize, json: &mut String) -> Result<(), minijinja::Error> {
        if depth > MAX_DEPTH {
            return Err(not_json("the value nests too deep"));
        }
        if json.len() > MAX_OUTPUT {
            return Err(not_json("the value is too long"));
        }
        match given.kind() {
            ValueKind::Undefined => return Err(not_json("the value is undefined")),
            ValueKind::None => json.push_str("null"),
            // Displayed in the Python way, `True`.
            ValueKind::Bool => json.push_str(if given.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&given.to_string()),
            ValueKind::String => self.quote(given.as_str().unwrap_or_default(), json),
            ValueKind::Map => {
                let mut keys: Vec<Value> = given.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.items(['{', '}'], keys.iter(), depth, json, |key, json| {
                    self.quote(&key.to_string(), json);
                    json.push_str(self.colon);
                    self.write(&given.get_item(key)?, depth + 1, json)
                })?;
            }
            _ => {
                self.items(['[', ']'], given.try_iter()?, depth, json, |item, json| self.write(&item, depth + 1, json))?
            }
        }
        Ok(())
    }

    fn items<T>(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = T>,
        depth: usize,
        json: &mut String,
        mut each: impl FnMut(T, &mut String) -> Result<(), minijinja::Error>,
    ) -> Result<(), minijinja::Error> {
        json.push(open);
        let mut empty = true;
        for item in items {
            json.push_str(if std::mem::take(&mut empty) { "" } else { self.comma });
            self.line(depth + 1, json);
            each(item, json)?;
        }
        if !empty {
            self.line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn quote(&self, text: &str, json: &mut String) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return json.push_str(&quoted);
        }
        for character in quoted.chars() {
            match character {
                '\0'..='\x7e' => json.push(character),
                _ => json.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
            }
        }
    }
}
