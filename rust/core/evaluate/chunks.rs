//! Texts in pieces of equal length, as the tools of llama.cpp cut them.

use crate::{Error, Interrupt, Model, Result};

/// The shortest chunk of whose second half a token can be scored.
const LEAST_TOKENS: usize = 4;

/// The tokens of `text`, with the special ones that the model asks for, in pieces of `size`; what is left over is dropped. Where the model begins
/// texts with a token of its own, each piece begins with it, in place of its first token. At most `most` pieces.
///
/// # Errors
/// [`Error::Argument`] for a text of less than two pieces, or pieces of less than four tokens; [`Error::Tokenizer`],
/// [`Error::Cancelled`].
pub fn chunks(
    model: &Model,
    text: &str,
    size: usize,
    most: Option<usize>,
    interrupt: &dyn Interrupt,
) -> Result<Vec<Vec<u32>>> {
    cut(model, model.tokenizer().encode(text, true, false, interrupt)?, size, most)
}

/// The same of tokens.
pub(crate) fn cut(model: &Model, tokens: Vec<u32>, size: usize, most: Option<usize>) -> Result<Vec<Vec<u32>>> {
    if size < LEAST_TOKENS || size > model.context() {
        let context = model.context();
        return Err(Error::Argument(format!(
            "chunks must have from {LEAST_TOKENS} tokens to the context of {context}, found {size}; load the model with a larger context"
        )));
    }
    if most == Some(0) {
        return Err(Error::Argument("chunks must be at least 1, found 0".into()));
    }
    if tokens.len() < 2 * size {
        let found = tokens.len();
        return Err(Error::Argument(format!(
            "the text must have at least two chunks of {size} tokens, found {found} tokens; use a longer text or shorter chunks"
        )));
    }
    let tokenizer = model.tokenizer();
    let first = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let pieces = tokens.chunks_exact(size).take(most.unwrap_or(usize::MAX));
    Ok(pieces
        .map(|piece| {
            let mut piece = piece.to_vec();
            if let Some(first) = first {
                piece[0] = first;
            }
            piece
        })
        .collect())
}
