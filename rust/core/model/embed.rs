//! Embeddings: one vector for a text, made of the hidden states of its tokens.

use super::keys::Keys;
use super::{BatchItem, Logits, Model, Output, Sequence};
use crate::{Error, Interrupt, Result};

/// How one vector is made of those of the tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token (`[CLS]`).
    First,
    /// That of the last token.
    Last,
}

impl Pooling {
    /// All, as people name them.
    pub const ALL: [(&str, Pooling); 3] = [("mean", Pooling::Mean), ("cls", Pooling::First), ("last", Pooling::Last)];

    /// The pooling with this name.
    ///
    /// # Errors
    /// [`Error::Argument`] that lists the names.
    pub fn from_name(name: &str) -> Result<Pooling> {
        let found = Pooling::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, pooling)| *pooling).ok_or_else(|| {
            let names = Pooling::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
            Error::Argument(format!("pooling must be one of {names}, found {name:?}"))
        })
    }

    /// What a file asks for as `pooling_type`; `None` where it says nothing, or that tokens keep their own vectors.
    pub(super) fn read(keys: &Keys<'_>) -> Result<Option<Pooling>> {
        Ok(match keys.count("pooling_type", 0..=4, Some(0))? {
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::First),
            3 => Some(Pooling::Last),
            // A ranking model: what ranks is not read, but its vectors are those of the first token.
            4 => Some(Pooling::First),
            _ => None,
        })
    }

    /// The vector for `rows`, `(tokens, width)`.
    fn pool(self, rows: &[f32], width: usize) -> Vec<f32> {
        match self {
            Pooling::First => rows[..width].to_vec(),
            Pooling::Last => rows[rows.len() - width..].to_vec(),
            Pooling::Mean => {
                let mut sums = vec![0.0f64; width];
                for row in rows.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                let count = (rows.len() / width) as f64;
                sums.into_iter().map(|sum| (sum / count) as f32).collect()
            }
        }
    }
}

/// Divides by the Euclidean length; a vector of zeros stays.
fn normalize(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

/// The most tokens that are computed in one call: their hidden states are held at once.
const TOKENS_PER_CALL: usize = 8192;

/// How texts become vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmbedOptions {
    /// How one vector is made of those of the tokens; by default what the file says, else the mean.
    pub pooling: Option<Pooling>,
    /// Divide vectors by their length.
    pub normalize: bool,
    /// Shorten texts that exceed the context, instead of refusing them.
    pub truncate: bool,
}

impl Default for EmbedOptions {
    fn default() -> EmbedOptions {
        EmbedOptions { pooling: None, normalize: true, truncate: false }
    }
}

impl Model {
    /// Vectors `(texts, width)` for texts, with the special tokens that the tokenizer adds.
    ///
    /// # Errors
    /// As [`Model::embed`]; [`Error::ContextOverflow`] when a text is longer than the context and may not be shortened.
    pub fn embed_texts<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: EmbedOptions,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<f32>> {
        let tokens = texts.iter().map(|text| self.tokens_of(text.as_ref(), options.truncate, interrupt));
        self.embed(&tokens.collect::<Result<Vec<_>>>()?, options.pooling, options.normalize, interrupt)
    }

    /// The tokens of a text, of which what exceeds the context may be cut off before the token that ends it.
    fn tokens_of(&self, text: &str, truncate: bool, interrupt: &dyn Interrupt) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer().encode(text, true, false, interrupt)?;
        let (len, context) = (tokens.len(), self.context());
        if len > context {
            if !truncate {
                return Err(Error::ContextOverflow(format!(
                    "a text of {len} tokens exceeds the context of {context}; shorten it or allow that (truncate)"
                )));
            }
            let plain = self.tokenizer().encode(text, false, false, interrupt)?;
            let special = len - plain.len();
            let end = if tokens.starts_with(&plain) { special } else { special.saturating_sub(1) };
            tokens.drain(context.saturating_sub(end)..len - end);
        }
        Ok(tokens)
    }

    /// Vectors `(texts, width)` for texts of tokens, made of the hidden states after the last norm; `pooling` and `unit` as
    /// in [`EmbedOptions`]. The bits of a vector depend on its text only.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn embed(
        &self,
        texts: &[Vec<u32>],
        pooling: Option<Pooling>,
        unit: bool,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<f32>> {
        let width = self.spec().width;
        let pooling = pooling.or(self.spec().pooling).unwrap_or(Pooling::Mean);
        let mut out = Vec::with_capacity(texts.len().saturating_mul(width));
        let mut rest = texts;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |text: &&Vec<u32>| {
                tokens += text.len();
                tokens <= TOKENS_PER_CALL
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = later;
            for mut vector in self.pooled(now, pooling, interrupt)? {
                if unit {
                    normalize(&mut vector);
                }
                out.extend(vector);
            }
        }
        Ok(out)
    }

    fn pooled(&self, texts: &[Vec<u32>], pooling: Pooling, interrupt: &dyn Interrupt) -> Result<Vec<Vec<f32>>> {
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| self.new_sequence()).collect();
        let mut hidden: Vec<Vec<f32>> = vec![Vec::new(); texts.len()];
        // Of a text that is read from the front, the last token alone has seen all of it.
        let logits = if pooling == Pooling::Last { Logits::Last } else { Logits::All };
        let mut batch: Vec<BatchItem<'_>> = texts
            .iter()
            .zip(&mut sequences)
            .zip(&mut hidden)
            .map(|((tokens, sequence), out)| BatchItem { sequence, tokens, logits, out })
            .collect();
        self.inner.forward(&mut batch, Output::Hidden, interrupt)?;
        Ok(hidden.into_iter().map(|rows| pooling.pool(&rows, self.spec().width)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Pooling, normalize};

    #[test]
    fn vectors_are_made_of_rows() {
        let rows = [1.0, 2.0, 3.0, 6.0, 5.0, 1.0];
        assert_eq!(Pooling::Mean.pool(&rows, 2), [3.0, 3.0]);
        assert_eq!(Pooling::First.pool(&rows, 2), [1.0, 2.0]);
        assert_eq!(Pooling::Last.pool(&rows, 2), [5.0, 1.0]);
        let mut vector = [3.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
        assert!(
            Pooling::from_name("rank").is_err_and(|error| error.to_string().contains("\"mean\", \"cls\", \"last\""))
        );
    }
}
