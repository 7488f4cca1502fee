//! What the requests of all endpoints say about how to choose tokens and when to end.
//!
//! OpenAI's fields with OpenAI's ranges, and llama.cpp's `top_k`, `min_p`, `typical_p`, `repeat_penalty`, `repeat_last_n` and `ignore_eos` beside them.

use fastq_core::GenerationOptions;
use fastq_core::sampler::{SamplerOptions, random_seed};
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use super::fields::{Fields, wrong};

/// The most tokens that can be asked for; far beyond any context.
pub(super) const MAX_TOKENS: u64 = 1 << 24;

/// The most stop strings, and the longest of them in bytes.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;

/// The most answers of one request, over all of its prompts.
pub(super) const MAX_ANSWERS: usize = 64;

/// The most tokens with a bias.
const MAX_BIASES: usize = 1024;

/// The most recent tokens that penalties look at.
const MAX_LAST: u64 = 1 << 20;

/// The options of a request. The temperature is 1 unless it says otherwise, as OpenAI documents; `top_k`, `top_p` and `min_p` have the engine's
/// defaults, without which small models write less well.
///
/// # Errors
/// 400 naming the field.
pub(super) fn options(fields: &Fields<'_>, vocabulary: usize) -> ApiResult<GenerationOptions> {
    let default = SamplerOptions::default();
    let number = |name, range, default: f32| -> ApiResult<f32> {
        Ok(fields.number(name, range)?.map_or(default, |value| value as f32))
    };
    // A share of nothing keeps the most likely token, which is what the smallest share does.
    let share = |name, default: f32| Ok::<f32, ApiError>(number(name, 0.0..=1.0, default)?.max(f32::MIN_POSITIVE));
    let sampler = SamplerOptions {
        temperature: number("temperature", 0.0..=2.0, 1.0)?,
        top_k: fields.count("top_k", 0..=MAX_LAST)?.unwrap_or(default.top_k),
        top_p: share("top_p", default.top_p)?,
        min_p: number("min_p", 0.0..=1.0, default.min_p)?,
        typical_p: share("typical_p", default.typical_p)?,
        repeat_penalty: penalty(fields, default.repeat_penalty)?,
        repeat_last_n: fields.count("repeat_last_n", 0..=MAX_LAST)?.unwrap_or(default.repeat_last_n),
        presence_penalty: number("presence_penalty", -2.0..=2.0, 0.0)?,
        frequency_penalty: number("frequency_penalty", -2.0..=2.0, 0.0)?,
        logit_bias: logit_bias(fields, vocabulary)?,
        seed: fields.integer("seed", 0..=i64::MAX as u64)?.unwrap_or_else(random_seed),
        ..default
    };
    Ok(GenerationOptions {
        max_tokens: None,
        stop: stop(fields)?,
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        sampler,
        ..GenerationOptions::default()
    })
}

/// Zero would divide by it.
fn penalty(fields: &Fields<'_>, default: f32) -> ApiResult<f32> {
    match fields.number("repeat_penalty", 0.0..=10.0)? {
        Some(value) if value < 0.01 => Err(fields.wrong("repeat_penalty", "a number from 0.01 to 10")),
        value => Ok(value.map_or(default, |value| value as f32)),
    }
}

fn stop(fields: &Fields<'_>) -> ApiResult<Vec<String>> {
    let expected = format!("a string or a list of at most {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes");
    let texts = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(texts)) if texts.len() <= MAX_STOPS => texts.iter().collect(),
        Some(text @ Value::String(_)) => vec![text],
        Some(_) => return Err(fields.wrong("stop", &expected)),
    };
    let text = |value: &Value| {
        let text = value.as_str().filter(|text| (1..=MAX_STOP_BYTES).contains(&text.len()));
        text.map(str::to_owned).ok_or_else(|| wrong(&fields.path("stop"), &expected, value))
    };
    texts.into_iter().map(text).collect()
}

/// OpenAI's table: token id (as text, since JSON has no other keys) to a number from -100 to 100.
fn logit_bias(fields: &Fields<'_>, vocabulary: usize) -> ApiResult<Vec<(u32, f32)>> {
    let Some(table) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    if table.entries().count() > MAX_BIASES {
        return Err(fields.wrong("logit_bias", &format!("an object of at most {MAX_BIASES} tokens")));
    }
    let entry = |(key, _): (&String, &Value)| {
        let token = key.parse::<u32>().ok().filter(|&token| (token as usize) < vocabulary);
        let token = token.ok_or_else(|| {
            let message = format!("the keys of logit_bias must be token ids below {vocabulary}, found {key:.20?}");
            ApiError::field(fields.path("logit_bias"), message)
        })?;
        let bias = table.number(key, -100.0..=100.0)?.ok_or_else(|| table.wrong(key, "a number from -100 to 100"))?;
        // What OpenAI documents as a ban is one, also for a token that is certain.
        Ok((token, if bias <= -100.0 { f32::NEG_INFINITY } else { bias as f32 }))
    };
    table.entries().map(entry).collect()
}

/// The options of each of `answers` answers: the same, but for the seed.
pub(super) fn each(options: &GenerationOptions, answers: usize) -> Vec<GenerationOptions> {
    let each = (0..answers as u64).map(|answer| {
        let mut options = options.clone();
        options.sampler.seed = options.sampler.seed.wrapping_add(answer);
        options
    });
    each.collect()
}

/// Whether to stream, and whether to tell the usage at the end of the stream.
pub(super) fn stream(fields: &Fields<'_>) -> ApiResult<Option<bool>> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    let usage = options.map(|options| options.boolean("include_usage")).transpose()?.flatten().unwrap_or(false);
    Ok(stream.then_some(usage))
}
