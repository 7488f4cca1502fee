//! Prompts in, pieces of text out.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use fastq_core::generate::chat_tokens;
use fastq_core::sampler::{SamplerOptions, random_seed};
use fastq_core::{Completion, FinishReason, Generation, GenerationOptions, Model, Prompt};
use serde_json::{Map, Value, json};

use crate::arguments::{self, Options, array, optional, place, text};
use crate::cancel::{Flag, fastq_cancel};
use crate::memory::hand_out;
use crate::model::{fastq_model, model_of};
use crate::session::fastq_session;
use crate::status::{Failure, Outcome, fastq_error, fastq_status, guarded};

/// The seed of a request that asks for a new one each time.
pub const FASTQ_RANDOM_SEED: u64 = u64::MAX;

/// A flag of a request: go on after the model's end token.
pub const FASTQ_IGNORE_EOS: u32 = 1;

/// A flag of a request: show control tokens in the text.
pub const FASTQ_SHOW_SPECIAL: u32 = 2;

/// One message of a conversation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fastq_message {
    /// Who says it: "system", "user", "assistant", or what else the chat template of the model knows.
    pub role: *const c_char,
    /// What is said.
    pub content: *const c_char,
}

/// A number that is added to the logit of a token.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fastq_logit_bias {
    /// The token.
    pub token: u32,
    /// What is added; negative infinity forbids the token.
    pub bias: f32,
}

/// What to continue, and how. Fill it with fastq_request_init, then set one of `prompt`, `messages` and `tokens`, and change what
/// should be different.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fastq_request {
    /// Bytes of this struct; set by fastq_request_init.
    pub size: usize,
    /// Text to continue as it is. Control tokens that are spelled in it count as such.
    pub prompt: *const c_char,
    /// A conversation to answer, written down by the chat template of the model.
    pub messages: *const fastq_message,
    /// Number of messages.
    pub message_count: usize,
    /// Tokens to continue as they are.
    pub tokens: *const u32,
    /// Number of tokens.
    pub token_count: usize,
    /// What is kept from the last answer for this one; NULL, the default, for nothing.
    pub session: *mut fastq_session,
    /// Ends the generation when it is set; NULL, the default, for none.
    pub cancel: *const fastq_cancel,
    /// Texts that end the answer. They and what follows are not part of it.
    pub stop: *const *const c_char,
    /// Number of such texts.
    pub stop_count: usize,
    /// The most tokens to generate; default 256. SIZE_MAX: until the model ends or the context is full.
    pub max_tokens: usize,
    /// Numbers added to the logits of single tokens.
    pub logit_bias: *const fastq_logit_bias,
    /// Number of them.
    pub logit_bias_count: usize,
    /// Chooses among this many most likely tokens; default 40, 0 is off.
    pub top_k: usize,
    /// How many of the last tokens the penalties look at; default 64, 0 is off, SIZE_MAX is all.
    pub repeat_last_n: usize,
    /// What the random numbers come from; the same seed gives the same answer. FASTQ_RANDOM_SEED, the default, takes a new
    /// one, which the completion tells.
    pub seed: u64,
    /// Randomness; default 0.8, 0 always takes the most likely token.
    pub temperature: f32,
    /// Chooses among the most likely tokens that reach this probability together; default 0.95, 1 is off.
    pub top_p: f32,
    /// Drops tokens less likely than this times the most likely one; default 0.05, 0 is off.
    pub min_p: f32,
    /// Keeps the most typical tokens up to this probability; default 1, which is off.
    pub typical_p: f32,
    /// Divides the logits of recent tokens; default 1, which is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of every recent token; default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a recent token for each time it occurred; default 0.
    pub frequency_penalty: f32,
    /// FASTQ_IGNORE_EOS, FASTQ_SHOW_SPECIAL, both (|) or, the default, 0.
    pub flags: u32,
}

impl Default for fastq_request {
    fn default() -> fastq_request {
        let generation = GenerationOptions::default();
        let sampler = generation.sampler;
        fastq_request {
            size: size_of::<fastq_request>(),
            prompt: ptr::null(),
            messages: ptr::null(),
            message_count: 0,
            tokens: ptr::null(),
            token_count: 0,
            session: ptr::null_mut(),
            cancel: ptr::null(),
            stop: ptr::null(),
            stop_count: 0,
            max_tokens: generation.max_tokens.unwrap_or(usize::MAX),
            logit_bias: ptr::null(),
            logit_bias_count: 0,
            top_k: sampler.top_k,
            repeat_last_n: sampler.repeat_last_n,
            seed: FASTQ_RANDOM_SEED,
            temperature: sampler.temperature,
            top_p: sampler.top_p,
            min_p: sampler.min_p,
            typical_p: sampler.typical_p,
            repeat_penalty: sampler.repeat_penalty,
            presence_penalty: sampler.presence_penalty,
            frequency_penalty: sampler.frequency_penalty,
            flags: 0,
        }
    }
}

// SAFETY: numbers and pointers, and the last field ends where the struct does.
unsafe impl Options for fastq_request {
    const NAME: &'static str = "request";
    const FIRST: usize = offset_of!(fastq_request, flags) + size_of::<u32>();
}
const _: () = assert!(fastq_request::FIRST == size_of::<fastq_request>());

impl fastq_request {
    /// The prompt, as the model wants it.
    ///
    /// # Safety
    /// The pointers are null or what the header says.
    unsafe fn prompt(&self, model: &Model, cancel: &Flag<'_>) -> Outcome<Prompt> {
        let given = [!self.prompt.is_null(), !self.messages.is_null(), !self.tokens.is_null()];
        let found = given.into_iter().filter(|&given| given).count();
        if found != 1 {
            return Err(Failure::argument(format!(
                "one of request.prompt, request.messages and request.tokens must be set, found {found}"
            )));
        }
        if !self.prompt.is_null() {
            // SAFETY: as the caller grants.
            return Ok(Prompt::Text(unsafe { text(self.prompt, "request.prompt")? }.to_owned()));
        }
        if !self.tokens.is_null() {
            // SAFETY: as the caller grants.
            return Ok(Prompt::Tokens(unsafe { array(self.tokens, self.token_count, "request.tokens")? }.to_vec()));
        }
        // SAFETY: as the caller grants.
        let messages = unsafe { array(self.messages, self.message_count, "request.messages")? };
        let message = |(at, message): (usize, &fastq_message)| -> Outcome<Value> {
            // SAFETY: as the caller grants.
            let (role, content) = unsafe {
                (
                    text(message.role, format_args!("request.messages[{at}].role"))?,
                    text(message.content, format_args!("request.messages[{at}].content"))?,
                )
            };
            Ok(json!({ "role": role, "content": content }))
        };
        let messages = messages.iter().enumerate().map(message).collect::<Outcome<Vec<Value>>>()?;
        Ok(Prompt::Tokens(chat_tokens(model, &messages, None, &Map::new(), cancel)?))
    }

    /// The options of the engine.
    ///
    /// # Safety
    /// The pointers are null or what the header says.
    unsafe fn options(&self) -> Outcome<GenerationOptions> {
        // SAFETY: as the caller grants.
        let (stop, logit_bias) = unsafe {
            (
                array(self.stop, self.stop_count, "request.stop")?,
                array(self.logit_bias, self.logit_bias_count, "request.logit_bias")?,
            )
        };
        let one = |(at, &stop): (usize, &*const c_char)| {
            // SAFETY: as the caller grants.
            unsafe { text(stop, format_args!("request.stop[{at}]")) }.map(str::to_owned)
        };
        arguments::flags(self.flags, FASTQ_IGNORE_EOS | FASTQ_SHOW_SPECIAL, "request.flags")?;
        Ok(GenerationOptions {
            max_tokens: Some(self.max_tokens),
            stop: stop.iter().enumerate().map(one).collect::<Outcome<_>>()?,
            ignore_eos: self.flags & FASTQ_IGNORE_EOS != 0,
            special: self.flags & FASTQ_SHOW_SPECIAL != 0,
            sampler: SamplerOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                logit_bias: logit_bias.iter().map(|entry| (entry.token, entry.bias)).collect(),
                seed: if self.seed == FASTQ_RANDOM_SEED { random_seed() } else { self.seed },
                ..SamplerOptions::default()
            },
            ..GenerationOptions::default()
        })
    }
}

/// Takes the answer piece by piece, on the thread that called fastq_generate. A piece has at least one character and no half
/// ones; `length` is its bytes without the zero at its end. It is gone when the callback returns. Not 0 ends the
/// generation.
///
/// The callback may call every function but for the free of what the generation uses. It must return: no longjmp, no exception.
pub type fastq_callback =
    Option<unsafe extern "C" fn(piece: *const c_char, length: usize, user_data: *mut c_void) -> c_int>;

/// Why an answer ended.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum fastq_finish {
    /// The model came to its end, or a stop text came up.
    Stop = 0,
    /// max_tokens or the context was reached.
    Length = 1,
    /// The callback or a fastq_cancel ended it.
    Cancelled = 2,
}

impl From<FinishReason> for fastq_finish {
    fn from(reason: FinishReason) -> fastq_finish {
        match reason {
            FinishReason::Stop => fastq_finish::Stop,
            FinishReason::Length => fastq_finish::Length,
            FinishReason::Cancelled => fastq_finish::Cancelled,
        }
    }
}

/// An answer. End it with fastq_free, which frees all that it points to.
#[repr(C)]
pub struct fastq_completion {
    /// Bytes of this struct, as the library knows it: fields that end later are not there.
    pub size: usize,
    /// The text: all pieces together. After a cancellation perhaps more, which was held back while it could have become a stop
    /// text or a whole character.
    pub text: *const c_char,
    /// Bytes of the text without the zero at its end.
    pub text_length: usize,
    /// The tokens. The end token is not among them; with a stop text, the tokens that it is made of are.
    pub tokens: *const u32,
    /// Number of tokens.
    pub token_count: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the session had kept.
    pub cached_tokens: usize,
    /// The seed that was used.
    pub seed: u64,
    /// Prompt tokens that were computed.
    pub prefill_tokens: usize,
    /// Tokens chosen after the first one.
    pub decode_tokens: usize,
    /// Seconds until the first token was chosen. prefill_tokens / prefill_seconds is the speed.
    pub prefill_seconds: f64,
    /// Seconds for the tokens after the first one. decode_tokens / decode_seconds is the speed.
    pub decode_seconds: f64,
    /// Why it ended.
    pub finish_reason: fastq_finish,
}

fn completion_of(completion: &Completion, seed: u64) -> Outcome<*mut fastq_completion> {
    hand_out(&completion.tokens, &completion.text, |tokens, text| fastq_completion {
        size: size_of::<fastq_completion>(),
        text: text.cast(),
        text_length: completion.text.len(),
        tokens,
        token_count: completion.tokens.len(),
        prompt_tokens: completion.prompt_tokens,
        cached_tokens: completion.cached_tokens,
        seed,
        prefill_tokens: completion.timings.prefill_tokens,
        decode_tokens: completion.timings.decode_tokens,
        prefill_seconds: completion.timings.prefill_seconds,
        decode_seconds: completion.timings.decode_seconds,
        finish_reason: completion.finish_reason.into(),
    })
}

/// Fills a request with the defaults. `size` is sizeof(fastq_request).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_request_init(request: *mut fastq_request, size: usize) {
    // SAFETY: as the caller grants.
    unsafe { arguments::init(request, size) }
}

/// Continues a prompt, or answers a conversation.
///
/// `callback` may be NULL; it is given `user_data`. `completion` may be NULL, too, or receives the answer, which fastq_free ends.
/// A generation that was cancelled returns FASTQ_STATUS_CANCELLED, and the completion is the answer so far; NULL when not even
/// the prompt was read. Model and session can be used again after every error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_generate(
    model: *const fastq_model,
    request: *const fastq_request,
    callback: fastq_callback,
    user_data: *mut c_void,
    completion: *mut *mut fastq_completion,
    error: *mut fastq_error,
) -> fastq_status {
    let generate = || {
        // SAFETY: every pointer, those in the request included, is null or what the header says, as the caller grants.
        let (completion, model, request) = unsafe {
            let wanted = !completion.is_null();
            let completion = wanted.then(|| place(completion, ptr::null_mut(), "completion")).transpose()?;
            (completion, model_of(model)?, arguments::read(request)?)
        };
        // SAFETY: as above.
        let (cancel, session, options) = unsafe {
            let cancel = Flag(optional(request.cancel, "request.cancel")?);
            (cancel, optional(request.session.cast_const(), "request.session")?, request.options()?)
        };
        // SAFETY: as above.
        let prompt = unsafe { request.prompt(&model, &cancel)? };
        let mut kept = session.map(|session| session.begin(&model)).transpose()?;
        let mut generation = match &mut kept {
            Some(kept) => Generation::resume(&model, kept.take(), prompt, &options, &cancel)?,
            None => Generation::new(&model, vec![prompt], &options, &cancel)?,
        };
        let mut piece = Vec::new();
        while !generation.finished() {
            piece.clear();
            match generation.step(&cancel) {
                Ok(pieces) => pieces.iter().for_each(|part| piece.extend_from_slice(part.text.as_bytes())),
                Err(fastq_core::Error::Cancelled) => generation.cancel(),
                Err(error) => return Err(error.into()),
            }
            if let (Some(callback), false) = (callback, piece.is_empty()) {
                let length = piece.len();
                piece.push(0);
                // SAFETY: the callback is what the header says, as the caller grants; the piece lives until it returns.
                if unsafe { callback(piece.as_ptr().cast(), length, user_data) } != 0 {
                    generation.cancel();
                }
            }
        }
        if let Some(kept) = &mut kept {
            **kept = generation.take_kept();
        }
        let answer = generation.into_completions().pop();
        let answer = answer.ok_or_else(|| fastq_core::Error::Internal("a generation without an answer".into()))?;
        if let Some(completion) = completion {
            *completion = completion_of(&answer, options.sampler.seed)?;
        }
        match answer.finish_reason {
            FinishReason::Cancelled => Err(fastq_core::Error::Cancelled.into()),
            FinishReason::Stop | FinishReason::Length => Ok(()),
        }
    };
    // SAFETY: as the caller grants.
    unsafe { guarded(error, generate) }
}
