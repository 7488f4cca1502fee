//! What happens to a text that is longer than the context.

use crate::{Error, Result};

/// What to do when prompt and answer exceed the context.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overflow {
    /// A prompt that is too long is an error; an answer ends with [`Length`](super::FinishReason::Length).
    #[default]
    Error,
    /// The oldest half of what follows the first message is dropped, as often as it is needed, and the rest is computed again: the answer
    /// goes on. The first message, usually that of the system, stays if it takes at most half of the context.
    Shift,
    /// The middle of a prompt that is too long is dropped, and an answer ends where the context does: beginning and end of the prompt stay,
    /// three quarters of the context together, or more when the answer needs less.
    TruncateMiddle,
}

impl Overflow {
    /// All of them.
    pub const ALL: [Overflow; 3] = [Overflow::Error, Overflow::Shift, Overflow::TruncateMiddle];

    /// `"error"`, `"shift"` or `"truncate-middle"`.
    pub const fn name(self) -> &'static str {
        match self {
            Overflow::Error => "error",
            Overflow::Shift => "shift",
            Overflow::TruncateMiddle => "truncate-middle",
        }
    }

    /// The inverse of [`name`](Overflow::name).
    ///
    /// # Errors
    /// [`Error::Argument`] that lists the names.
    pub fn from_name(name: &str) -> Result<Overflow> {
        Overflow::ALL.into_iter().find(|overflow| overflow.name() == name).ok_or_else(|| {
            Error::Argument(format!(
                "overflow must be one of \"error\", \"shift\", \"truncate-middle\", found {name:?}"
            ))
        })
    }
}

/// `tokens` without the oldest ones behind the first `head`, so that half of the rest of the context is free.
pub(super) fn shifted(tokens: &[u32], head: usize, context: usize) -> Vec<u32> {
    // A first message that leaves no room for a conversation is not kept; the beginning token is.
    let head = if head <= context / 2 { head } else { 1 };
    let head = head.min(context.saturating_sub(2));
    let tail = ((context - head) / 2).clamp(usize::from(context > head), tokens.len() - head.min(tokens.len()));
    let mut shifted = tokens[..head].to_vec();
    shifted.extend_from_slice(&tokens[tokens.len() - tail..]);
    shifted
}

/// `tokens` without their middle, so that an answer of `max_tokens`, or a quarter of the context, has room.
pub(super) fn drop_middle(tokens: &[u32], context: usize, max_tokens: usize) -> Vec<u32> {
    let room = max_tokens.min(context / 4).max(1);
    let keep = context.saturating_sub(room).clamp(1, tokens.len());
    let head = keep / 2;
    let mut kept = tokens[..head].to_vec();
    kept.extend_from_slice(&tokens[tokens.len() - (keep - head)..]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_stay() {
        let tokens: Vec<u32> = (0..100).collect();
        assert_eq!(drop_middle(&tokens, 40, 1000), [&tokens[..15], &tokens[85..]].concat());
        assert_eq!(drop_middle(&tokens, 40, 2), [&tokens[..19], &tokens[81..]].concat());
        assert_eq!(shifted(&tokens, 10, 100), [&tokens[..10], &tokens[55..]].concat());
        assert_eq!(
            shifted(&tokens, 60, 100),
            [&tokens[..1], &tokens[51..]].concat(),
            "a first message too long to stay"
        );
    }

    #[test]
    fn every_context_leaves_room() {
        for context in 1..20 {
            for len in context..40 {
                let tokens: Vec<u32> = (0..len as u32).collect();
                for head in 1..=len {
                    let shifted = shifted(&tokens, head, context);
                    assert!(!shifted.is_empty() && (shifted.len() < context || context == 1), "{context} {len} {head}");
                }
                for max in [0, 1, 5, 1000] {
                    let kept = drop_middle(&tokens, context, max);
                    assert!(!kept.is_empty() && (kept.len() < context || context == 1), "{context} {len} {max}");
                }
            }
        }
    }

    #[test]
    fn names() {
        for overflow in Overflow::ALL {
            assert_eq!(Overflow::from_name(overflow.name()).unwrap(), overflow);
        }
        assert!(Overflow::from_name("wrap").unwrap_err().to_string().contains("\"shift\""));
    }
}
