//! Conversations that remember what was computed, and their files.
//!
//! A [`Session`] renders its messages with the model's template, and the sequence of the last answer serves the next one: only what the new prompt
//! does not have in common with it is computed. [`save`] and [`load`] put such a sequence into a file, a [`PromptCache`] keeps the beginnings of
//! prompts in a folder. All of them save time and nothing else: the answers have the bits that they would have without.

mod file;
mod prompt_cache;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::generate::{Kept, chat_tokens};
use crate::{Completion, Error, Generation, GenerationOptions, Interrupt, Model, Piece, Prompt, Result};

pub use file::{MAX_EXTRA, is_session, load, save};
pub use prompt_cache::{MAX_FILES, MIN_TOKENS, PromptCache};

/// A conversation with a model.
///
/// ```no_run
/// # use fastq_core::{Error, LoadOptions, Model, Never, Piece, Session};
/// let model = Model::load("model.gguf".as_ref(), &LoadOptions::default(), &Never)?;
/// let mut session = Session::new(&model, Some("Be terse."));
/// let ignore = |_: &Piece| Ok::<(), Error>(());
/// session.say("Hi", &Never, ignore)?;
/// let mut other = session.fork();
/// let answer = other.say("And now?", &Never, ignore)?;
/// println!("{} of {} tokens were known", answer.cached_tokens, answer.prompt_tokens);
/// session.save("talk.kv".as_ref(), &Never)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    model: Model,
    options: GenerationOptions,
    messages: Vec<Value>,
    tools: Option<Value>,
    variables: Map<String, Value>,
    /// The sequence of the last answer.
    kept: Option<Kept>,
    /// What the turn under way adds to the messages.
    pending: Option<Vec<Value>>,
}

impl Session {
    /// A new conversation, with a system message if there is one.
    pub fn new(model: &Model, system: Option<&str>) -> Session {
        let mut session = Session {
            model: model.clone(),
            options: GenerationOptions { max_tokens: None, ..GenerationOptions::default() },
            messages: Vec::new(),
            tools: None,
            variables: Map::new(),
            kept: None,
            pending: None,
        };
        session.reset(system);
        session
    }

    /// The same with options for its answers; by default they go on until the end token or the end of the context.
    pub fn with_options(mut self, options: GenerationOptions) -> Session {
        self.options = options;
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The messages so far, as the template gets them.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// Adds a message without an answer, or one that was made elsewhere.
    pub fn push(&mut self, message: Value) {
        self.messages.push(message);
    }

    /// The system message, if there is one.
    pub fn system(&self) -> Option<&str> {
        self.messages
            .first()
            .filter(|message| message["role"] == "system")
            .and_then(|message| message["content"].as_str())
    }

    /// How answers are generated.
    pub fn options(&self) -> &GenerationOptions {
        &self.options
    }

    /// How answers are generated, to be changed.
    pub fn options_mut(&mut self) -> &mut GenerationOptions {
        &mut self.options
    }

    /// The tools that the template is told of.
    pub fn tools(&self) -> Option<&Value> {
        self.tools.as_ref()
    }

    /// Sets the tools that the template is told of.
    pub fn set_tools(&mut self, tools: Option<Value>) {
        self.tools = tools;
    }

    /// Further variables of the template.
    pub fn variables_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.variables
    }

    /// The tokens whose keys and values are kept for the next answer.
    pub fn kept_tokens(&self) -> &[u32] {
        self.kept.as_ref().map_or(&[], Kept::tokens)
    }

    /// Starts anew, with another system message or none. The kept sequence stays: what the next prompt has in common with it need not be
    /// computed again.
    pub fn reset(&mut self, system: Option<&str>) {
        self.messages = system.map(|text| json!({ "role": "system", "content": text })).into_iter().collect();
        self.pending = None;
    }

    /// A second conversation that begins with this one. The pages of the cache are shared until one of the two writes into them.
    pub fn fork(&self) -> Session {
        let kept = self.kept.as_ref().map(|kept| Kept::from_parts(kept.sequence().fork(), kept.tokens().to_vec()));
        Session {
            model: self.model.clone(),
            options: self.options.clone(),
            messages: self.messages.clone(),
            tools: self.tools.clone(),
            variables: self.variables.clone(),
            kept,
            pending: None,
        }
    }

    /// Answers `text`; `each` gets every piece as it comes. An answer that `interrupt` stops stays in the conversation as far as it got, with
    /// the finish reason `Cancelled`. After an error, also one of `each`, the conversation is as before.
    ///
    /// # Errors
    /// As [`Session::begin`] and [`Generation::step`]; those of `each`.
    pub fn say<E: From<Error>>(
        &mut self,
        text: &str,
        interrupt: &dyn Interrupt,
        mut each: impl FnMut(&Piece) -> Result<(), E>,
    ) -> Result<Completion, E> {
        let mut generation = self.begin(vec![json!({ "role": "user", "content": text })], interrupt)?;
        while !generation.finished() {
            let result = match generation.step(interrupt) {
                Ok(pieces) => pieces.iter().try_for_each(&mut each),
                Err(Error::Cancelled) => {
                    generation.cancel();
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                self.abandon(generation);
                return Err(error);
            }
        }
        Ok(self.end(generation, None)?)
    }

    /// Begins a turn: the answer to the conversation with these messages added, which [`end`](Session::end) or [`abandon`](Session::abandon)
    /// is to be told of. Until then the messages are as before. A turn that was begun earlier is forgotten.
    ///
    /// # Errors
    /// [`Error::Template`] when the file has no template or it refuses the messages; as [`Generation::resume`].
    pub fn begin(&mut self, messages: Vec<Value>, interrupt: &dyn Interrupt) -> Result<Generation> {
        self.pending = None;
        let all: Vec<Value> = self.messages.iter().chain(&messages).cloned().collect();
        let tokens = chat_tokens(&self.model, &all, self.tools.as_ref(), &self.variables, interrupt)?;
        let kept = self.kept.take();
        let generation = Generation::resume(&self.model, kept, Prompt::Tokens(tokens), &self.options, interrupt)?;
        self.pending = Some(messages);
        Ok(generation)
    }

    /// Ends a turn: its messages become part of the conversation, and the answer, `message` if the caller has made one of the text (with tool calls,
    /// without reasoning). An answer that is not finished is cancelled.
    ///
    /// # Errors
    /// [`Error::Argument`] when no turn was begun.
    pub fn end(&mut self, mut generation: Generation, message: Option<Value>) -> Result<Completion> {
        let pending = self.pending.take();
        let pending = pending.ok_or_else(|| Error::Argument("the session has no turn to end; begin one".into()))?;
        generation.cancel();
        self.kept = generation.take_kept();
        let completion = generation.into_completions().pop();
        let completion = completion.ok_or_else(|| Error::Internal("an answer without a completion".into()))?;
        self.messages.extend(pending);
        self.messages.push(message.unwrap_or_else(|| json!({ "role": "assistant", "content": completion.text })));
        Ok(completion)
    }

    /// Gives up a turn: the conversation is as before it, but what was computed is kept.
    pub fn abandon(&mut self, mut generation: Generation) {
        if self.pending.take().is_some() {
            generation.cancel();
            self.kept = generation.take_kept();
        }
    }

    /// Writes the conversation and its sequence to a file that [`Session::load`] takes back. When the file appears, or is replaced, it is whole.
    /// The options are not part of it.
    ///
    /// # Errors
    /// As [`save`].
    pub fn save(&self, path: &Path, interrupt: &dyn Interrupt) -> Result<()> {
        let mut extra = json!({ "messages": self.messages });
        if let Some(tools) = &self.tools {
            extra["tools"] = tools.clone();
        }
        if !self.variables.is_empty() {
            extra["variables"] = Value::Object(self.variables.clone());
        }
        match &self.kept {
            Some(kept) => save(kept, &self.model, path, &extra, interrupt),
            None => {
                let nothing = Kept::from_parts(self.model.new_sequence(), Vec::new());
                save(&nothing, &self.model, path, &extra, interrupt)
            }
        }
    }

    /// Goes on with a conversation that [`Session::save`] has written, as if it had never ended.
    ///
    /// # Errors
    /// As [`load`]; [`Error::Session`] also for a file that holds no conversation.
    pub fn load(model: &Model, path: &Path, interrupt: &dyn Interrupt) -> Result<Session> {
        let (kept, mut extra) = load(model, path, interrupt)?;
        let error = |what: &str| Error::Session { path: path.into(), offset: None, what: what.into() };
        let mut part = |name: &str| extra.get_mut(name).map(Value::take).unwrap_or_default();
        let mut session = Session::new(model, None);
        match part("messages") {
            Value::Array(messages) if messages.iter().all(Value::is_object) => session.messages = messages,
            Value::Null => return Err(error("the file holds a prompt, expected a conversation with messages")),
            _ => return Err(error("expected messages to be a list of objects")),
        }
        match part("variables") {
            Value::Null => {}
            Value::Object(variables) => session.variables = variables,
            _ => return Err(error("expected variables to be an object")),
        }
        session.tools = Some(part("tools")).filter(|tools| !tools.is_null());
        session.kept = Some(kept).filter(|kept| !kept.tokens().is_empty());
        Ok(session)
    }
}
