//! Text to tokens and back.

use std::ffi::{c_char, c_int};
use std::ptr;

use fastq_core::Never;

use crate::arguments::{array, place, text};
use crate::memory::hand_out;
use crate::model::{fastq_model, model_of};
use crate::status::{fastq_error, fastq_status, guarded};

/// The tokens of a text.
///
/// `add_special`: not 0 adds the beginning and end tokens that the file asks for. `parse_special`: not 0 takes control tokens that
/// are spelled in the text as such, which only texts that are trusted should be allowed. `tokens` receives the tokens, which
/// fastq_free ends, and `count` their number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_tokenize(
    model: *const fastq_model,
    text: *const c_char,
    add_special: c_int,
    parse_special: c_int,
    tokens: *mut *mut u32,
    count: *mut usize,
    error: *mut fastq_error,
) -> fastq_status {
    let tokenize = || {
        // SAFETY: every pointer is null or what the header says, as the caller grants.
        let (tokens, count, model, text) = unsafe {
            let (tokens, count) = (place(tokens, ptr::null_mut(), "tokens")?, place(count, 0, "count")?);
            (tokens, count, model_of(model)?, self::text(text, "text")?)
        };
        let ids = model.tokenizer().encode(text, add_special != 0, parse_special != 0, &Never)?;
        *tokens = hand_out(&ids, "", |_, _| ())?.cast();
        *count = ids.len();
        Ok(())
    };
    // SAFETY: as the caller grants.
    unsafe { guarded(error, tokenize) }
}

/// The text of tokens.
///
/// `special`: not 0 shows control tokens. `text` receives the text, which fastq_free ends, and `length`, which may be NULL, its
/// bytes without the zero at its end. Bytes that are no character become U+FFFD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_detokenize(
    model: *const fastq_model,
    tokens: *const u32,
    count: usize,
    special: c_int,
    text: *mut *mut c_char,
    length: *mut usize,
    error: *mut fastq_error,
) -> fastq_status {
    let detokenize = || {
        // SAFETY: every pointer is null or what the header says, as the caller grants.
        let (text, length, model, tokens) = unsafe {
            let wanted = !length.is_null();
            let length = wanted.then(|| place(length, 0, "length")).transpose()?;
            (place(text, ptr::null_mut(), "text")?, length, model_of(model)?, array(tokens, count, "tokens")?)
        };
        let decoded = model.tokenizer().decode(tokens, special != 0)?;
        *text = hand_out::<(), u8>(&[], &decoded, |_, _| ())?.cast();
        if let Some(length) = length {
            *length = decoded.len();
        }
        Ok(())
    };
    // SAFETY: as the caller grants.
    unsafe { guarded(error, detokenize) }
}
