//! `fastq chat`: a conversation in the terminal.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use fastq_core::session::is_session;
use fastq_core::{Completion, FinishReason, GenerationOptions, Model, Session};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use serde_json::Value;

use crate::default_model::set;
use crate::options::{LoadArguments, SamplingArguments};
use crate::report;
use crate::signals::Computing;
use crate::terminal::{self, Failure, Outcome};

/// Talk with a model
///
/// Ctrl-C stops an answer, Ctrl-D ends the conversation, /help shows what else there is. The history of the lines typed is kept
/// in the user's state folder. Without MODEL the default model answers: SmolLM2-135M-Instruct, fetched once with pip (94 MiB).
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file with a chat template
    model: Option<PathBuf>,
    /// System message
    #[arg(long, value_name = "TEXT", conflicts_with = "session")]
    system: Option<String>,
    /// Go on with a conversation that /store has written
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Print a summary after every answer
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    load: LoadArguments,
}

const HELP: &str = r#"/help            this
/system [TEXT]   show or set the system message; starts a new conversation
/reset           start a new conversation
/save FILE       write the conversation as JSON messages
/store FILE      write the conversation with what was computed of it, for /load and --session
/load FILE       go on with such a conversation
/quit            end (also Ctrl-D)
"""              begins and ends a message of several lines; a line may also go on after a \ at its end
Ctrl-C           stops an answer"#;

/// What a line of input asks for.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Message(String),
    Help,
    System(Option<String>),
    Reset,
    Save(String),
    Store(String),
    Load(String),
    Quit,
    Nothing,
    Unknown(String),
}

impl Input {
    /// Understands a complete message.
    fn parse(text: &str) -> Input {
        let trimmed = text.trim();
        if !trimmed.starts_with('/') {
            return if trimmed.is_empty() { Input::Nothing } else { Input::Message(text.to_owned()) };
        }
        let (command, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let rest = rest.trim().to_owned();
        match command {
            "/help" | "/?" => Input::Help,
            "/system" => Input::System((!rest.is_empty()).then_some(rest)),
            "/reset" | "/clear" => Input::Reset,
            "/save" => Input::Save(rest),
            "/store" => Input::Store(rest),
            "/load" => Input::Load(rest),
            "/quit" | "/exit" | "/bye" => Input::Quit,
            other => Input::Unknown(other.to_owned()),
        }
    }
}

/// Joins lines to messages.
#[derive(Default)]
struct Lines {
    text: String,
    quoted: bool,
}

impl Lines {
    /// Whether a message has begun and is not complete.
    fn open(&self) -> bool {
        self.quoted || !self.text.is_empty()
    }

    /// Takes a line; gives the message when it is complete, and whether it was quoted (then it is no command).
    fn push(&mut self, line: &str) -> Option<(String, bool)> {
        if self.quoted {
            return match line.trim_end().strip_suffix("\"\"\"") {
                Some(last) => {
                    self.text.push_str(last);
                    self.quoted = false;
                    Some((std::mem::take(&mut self.text), true))
                }
                None => {
                    self.text.push_str(line);
                    self.text.push('\n');
                    None
                }
            };
        }
        if let Some(rest) = line.trim_start().strip_prefix("\"\"\"").filter(|_| self.text.is_empty()) {
            if let Some(whole) = rest.trim_end().strip_suffix("\"\"\"") {
                return Some((whole.to_owned(), true));
            }
            self.quoted = true;
            if !rest.is_empty() {
                self.text = format!("{rest}\n");
            }
            return None;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            self.text.push_str(begun);
            self.text.push('\n');
            return None;
        }
        self.text.push_str(line);
        Some((std::mem::take(&mut self.text), false))
    }
}

/// Answers `text`, printing as it comes. Ctrl-C stops the answer.
fn say(session: &mut Session, text: &str) -> Outcome<Completion> {
    let computing = Computing::begin();
    let completion = session.say(text, &computing, |piece| terminal::print(&piece.text))?;
    terminal::print("\n")?;
    Ok(completion)
}

/// Writes the session, refusing to replace a file that is none.
fn store(session: &Session, path: &Path) -> Outcome {
    if path.exists() && !is_session(path) {
        return Err(Failure::Error(format!("{}: the file exists and is no session; name another", path.display())));
    }
    Ok(session.save(path, &Computing::begin())?)
}

/// Takes back a session, with the options of this conversation.
fn restore(model: &Model, path: &Path, options: &GenerationOptions) -> Outcome<Session> {
    let session = Session::load(model, path, &Computing::begin())?.with_options(options.clone());
    let (messages, tokens) = (session.messages().len(), session.kept_tokens().len());
    terminal::note(&format!("{messages} messages, {tokens} tokens from {}", path.display()));
    Ok(session)
}

/// Where the lines typed are remembered: `fastq/history` in the user's state folder (XDG base directory specification).
fn history_file() -> Option<PathBuf> {
    let folder = if cfg!(windows) {
        PathBuf::from(set("LOCALAPPDATA")?)
    } else {
        set("XDG_STATE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/state")))?
    };
    Some(folder.join("fastq").join("history"))
}

/// Reads lines: with editing and history on a terminal, plainly otherwise.
struct Reader {
    editor: Editor<(), FileHistory>,
    history: Option<PathBuf>,
    terminal: bool,
}

impl Reader {
    fn new() -> Outcome<Reader> {
        let terminal = std::io::stdin().is_terminal();
        let config = Config::builder().auto_add_history(true).build();
        let history = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history)
            .map_err(|e| Failure::Error(format!("cannot read from the terminal: {e}")))?;
        let history = history_file().filter(|_| terminal);
        if let Some(path) = &history {
            // No history yet, or none that can be read: the conversation works without.
            let _ = editor.load_history(path);
        }
        Ok(Reader { editor, history, terminal })
    }

    fn line(&mut self, more: bool) -> Result<String, ReadlineError> {
        let prompt = match (self.terminal, more) {
            (false, _) => "",
            (true, false) => ">>> ",
            (true, true) => "... ",
        };
        self.editor.readline(prompt)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(path) = &self.history {
            let _ = path.parent().map(fs::create_dir_all);
            if let Err(error) = self.editor.save_history(path) {
                terminal::note(&format!("warning: cannot write the history to {}: {error}", path.display()));
            }
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let model = {
        let computing = Computing::begin();
        arguments.load.load(arguments.model.as_deref(), &computing)?
    };
    if model.template().is_none() {
        return Err(Failure::Error(format!(
            "{}: the file has no chat template (tokenizer.chat_template); use fastq run --raw",
            model.gguf().path().display()
        )));
    }
    report::warn(&model);
    let options = arguments.sampling.options(None);
    let mut session = match &arguments.session {
        Some(path) => restore(&model, path, &options)?,
        None => Session::new(&model, arguments.system.as_deref()).with_options(options.clone()),
    };
    let mut reader = Reader::new()?;
    if reader.terminal {
        terminal::note(&terminal::style("2", "/help for help, Ctrl-D to end"));
    }
    let mut lines = Lines::default();
    loop {
        let (text, quoted) = match reader.line(lines.open()) {
            Ok(line) => match lines.push(&line) {
                Some(message) => message,
                None => continue,
            },
            Err(ReadlineError::Interrupted) => {
                lines = Lines::default();
                terminal::note("Ctrl-D or /quit to end");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(0),
            Err(error) => return Err(Failure::Error(format!("cannot read from the terminal: {error}"))),
        };
        let input = if quoted { Input::Message(text) } else { Input::parse(&text) };
        match input {
            Input::Message(text) => match say(&mut session, &text) {
                Ok(completion) => {
                    if completion.finish_reason == FinishReason::Length {
                        terminal::note(&terminal::style("2", "(the answer reached its limit of tokens; /reset starts anew)"));
                    }
                    if arguments.stats {
                        let reason = completion.finish_reason;
                        let cached = completion.cached_tokens;
                        let summary = format!("{reason} | {} | {cached} tokens kept", report::timings(&completion.timings));
                        terminal::note(&terminal::style("2", &summary));
                    }
                }
                Err(Failure::Closed) => return Err(Failure::Closed),
                Err(Failure::Interrupted) => terminal::note("(stopped)"),
                Err(Failure::Error(message) | Failure::Usage(message)) => {
                    complain(&message);
                    // Into a pipe nobody reads the message and tries again.
                    if !reader.terminal {
                        return Ok(1);
                    }
                }
            },
            Input::Help => terminal::note(HELP),
            Input::System(None) => terminal::note(session.system().unwrap_or("(no system message)")),
            Input::System(text) => session.reset(text.as_deref()),
            Input::Reset => {
                let system = session.system().map(str::to_owned);
                session.reset(system.as_deref());
            }
            Input::Save(path) if path.is_empty() => terminal::note("/save needs the name of a file"),
            Input::Save(path) => match save(&path, session.messages()) {
                Ok(()) => terminal::note(&format!("{} messages in {path}", session.messages().len())),
                Err(error) => terminal::note(&format!("cannot write {path}: {error}")),
            },
            Input::Store(path) if path.is_empty() => terminal::note("/store needs the name of a file"),
            Input::Store(path) => match store(&session, path.as_ref()) {
                Ok(()) => {
                    let (messages, tokens) = (session.messages().len(), session.kept_tokens().len());
                    terminal::note(&format!("{messages} messages, {tokens} tokens in {path}"));
                }
                Err(failure) => tell(failure)?,
            },
            Input::Load(path) if path.is_empty() => terminal::note("/load needs the name of a file"),
            Input::Load(path) => match restore(&model, path.as_ref(), &options) {
                Ok(loaded) => session = loaded,
                Err(failure) => tell(failure)?,
            },
            Input::Quit => return Ok(0),
            Input::Nothing => {}
            Input::Unknown(command) => terminal::note(&format!("{command} is not known; /help shows what is")),
        }
    }
}

/// Shows an error after which the conversation goes on.
fn complain(message: &str) {
    terminal::note(&format!("{} {}", terminal::style("1;31", "error:"), terminal::one_line(message)));
}

/// As [`complain`], of what a command that reads or writes a file came to.
fn tell(failure: Failure) -> Outcome {
    match failure {
        Failure::Closed => return Err(Failure::Closed),
        Failure::Interrupted => terminal::note("(stopped)"),
        Failure::Error(message) | Failure::Usage(message) => complain(&message),
    }
    Ok(())
}

/// Writes the messages, refusing to replace a file.
fn save(path: &str, messages: &[Value]) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(messages).map_err(std::io::Error::other)?;
    let mut file = fs::File::create_new(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_join_to_messages() {
        let join = |input: &[&str]| -> Vec<(String, bool)> {
            let mut lines = Lines::default();
            let messages = input.iter().filter_map(|line| lines.push(line)).collect();
            assert!(!lines.open());
            messages
        };
        let plain = |text: &str| (text.to_owned(), false);
        let quoted = |text: &str| (text.to_owned(), true);
        assert_eq!(join(&["a", "b"]), [plain("a"), plain("b")]);
        assert_eq!(join(&["a\\", "b"]), [plain("a\nb")]);
        assert_eq!(join(&["\"\"\"a", "/b", "", "c\"\"\"", "d"]), [quoted("a\n/b\n\nc"), plain("d")]);
        assert_eq!(join(&["\"\"\"", "a", "\"\"\""]), [quoted("a\n")]);
        assert_eq!(join(&["\"\"\"one\"\"\""]), [quoted("one")]);
        assert_eq!(join(&[""]), [plain("")]);
    }

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(Input::parse("  "), Input::Nothing);
        assert_eq!(Input::parse(" hello /quit"), Input::Message(" hello /quit".into()));
        assert_eq!(Input::parse("/quit "), Input::Quit);
        assert_eq!(Input::parse("/system  Be  terse. "), Input::System(Some("Be  terse.".into())));
        assert_eq!(Input::parse("/system"), Input::System(None));
        assert_eq!(Input::parse("/save a b"), Input::Save("a b".into()));
        assert_eq!(Input::parse("/store a b"), Input::Store("a b".into()));
        assert_eq!(Input::parse("/load"), Input::Load(String::new()));
        assert_eq!(Input::parse("/nonsense x"), Input::Unknown("/nonsense".into()));
    }
}
