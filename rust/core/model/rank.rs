//! Ranking: how well documents answer a query, of models that were trained to tell (cross-encoders, rerankers).
//!
//! Query and document are one text. What ranks is a head on the hidden state of one of its tokens: of the first where positions see those behind
//! them, of the last elsewhere. Tensors and meaning are llama.cpp's (`LLAMA_POOLING_TYPE_RANK`): `cls`, a layer with tanh, which may be missing, and
//! `cls.output`, whose first output is the score. Rerankers that are language models (Qwen3-Reranker) have one output for "yes" and one for "no", and the
//! score is the probability of the first.

use fastq_kernels::math::exp64;

use super::Model;
use super::embed::Pooling;
use crate::gguf::TensorInfo;
use crate::{Error, Interrupt, Result};

/// `pooling_type` of models that rank.
const RANK: u32 = 4;
/// How the file says what query and document are put into.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";
/// Most outputs of a head.
const MAX_OUTPUTS: u64 = 1024;

/// `y = W x + b`.
struct Linear {
    /// `(rows, k)`.
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    k: usize,
}

impl Linear {
    /// The layer `name`, of rows of `k` weights; `None` where the file has none.
    fn read(model: &Model, name: &str, k: usize, most: u64) -> Result<Option<Linear>> {
        let file = model.gguf();
        let Some(tensor) = file.tensor(&format!("{name}.weight")) else { return Ok(None) };
        if tensor.k() != k as u64 || !(1..=most).contains(&tensor.rows()) {
            let found = &tensor.shape;
            return Err(file.tensor_error(tensor, format!("expected rows of {k}, at most {most}, found {found:?}")));
        }
        let rows = tensor.rows();
        let bias = match file.tensor(&format!("{name}.bias")) {
            Some(bias) if bias.shape != [rows] => {
                let found = &bias.shape;
                return Err(file.tensor_error(bias, format!("expected {rows} values, found {found:?}")));
            }
            Some(bias) => Some(values(model, bias)?),
            None => None,
        };
        Ok(Some(Linear { weights: values(model, tensor)?, bias, k }))
    }

    /// Products are summed up in f64, in order.
    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.weights.chunks_exact(self.k);
        rows.enumerate()
            .map(|(row, weights)| {
                let sum: f64 = weights.iter().zip(x).map(|(weight, value)| f64::from(*weight) * value).sum();
                sum + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]))
            })
            .collect()
    }
}

/// All numbers of a tensor.
fn values(model: &Model, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let file = model.gguf();
    let format = tensor.ty.kernel().ok_or_else(|| {
        Error::UnsupportedModel(format!("tensor {}: this version does not know its type {}", tensor.name, tensor.ty))
    })?;
    let count = usize::try_from(tensor.elements()).map_err(|_| file.tensor_error(tensor, "too large"))?;
    let mut values = vec![0.0; count];
    format.dequantize(file.tensor_data(tensor), &mut values);
    Ok(values)
}

/// With our own exponential, so that every machine gives the same bits.
fn tanh(x: f64) -> f64 {
    1.0 - 2.0 / (exp64(2.0 * x) + 1.0)
}

/// What ranks.
struct Head {
    dense: Option<Linear>,
    output: Linear,
}

impl Head {
    fn read(model: &Model) -> Result<Head> {
        let file = model.gguf();
        let key = format!("{}.pooling_type", file.str("general.architecture")?.unwrap_or_default());
        let kind = file.u32(&key)?;
        let needs = |what: String| {
            let path = file.path().display();
            Error::UnsupportedModel(format!(
                "{path}: rerank needs a model that was made for it: {what}; embed compares texts with any model"
            ))
        };
        if kind != Some(RANK) {
            let found = kind.map_or("none".into(), |kind| kind.to_string());
            return Err(needs(format!("expected {key} {RANK}, found {found}")));
        }
        if file.tensor("cls.norm.weight").is_some() {
            return Err(needs("a head with a norm (cls.norm.weight) is not known to this version".into()));
        }
        let width = model.spec().width;
        let dense = Linear::read(model, "cls", width, width as u64)?;
        let inner = dense.as_ref().map_or(width, |dense| dense.weights.len() / dense.k);
        let output = Linear::read(model, "cls.output", inner, MAX_OUTPUTS)?
            .ok_or_else(|| needs("expected the tensor cls.output.weight, found none".into()))?;
        Ok(Head { dense, output })
    }

    /// The score of a hidden state.
    fn score(&self, hidden: &[f32], causal: bool) -> f32 {
        let mut x: Vec<f64> = hidden.iter().map(|value| f64::from(*value)).collect();
        if let Some(dense) = &self.dense {
            x = dense.apply(&x).into_iter().map(tanh).collect();
        }
        let outputs = self.output.apply(&x);
        if !causal || outputs.len() < 2 {
            return outputs[0] as f32;
        }
        let largest = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = outputs.iter().map(|output| exp64(output - largest)).sum();
        (exp64(outputs[0] - largest) / sum) as f32
    }
}

impl Model {
    /// How well each document answers the query; larger is better. The bits of a score depend on its document and the query only.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] when the model has no head that ranks, naming what is missing; [`Error::ModelFile`] when it does not fit;
    /// [`Error::ContextOverflow`] when query and document are longer than the context; otherwise as [`Model::embed`].
    pub fn rerank<T: AsRef<str>>(&self, query: &str, documents: &[T], interrupt: &dyn Interrupt) -> Result<Vec<f32>> {
        let (head, causal) = (Head::read(self)?, self.spec().causal);
        let pairs = documents.iter().map(|document| self.pair(query, document.as_ref(), interrupt));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let pooling = if causal { Pooling::Last } else { Pooling::First };
        let hidden = self.embed(&pairs, Some(pooling), false, interrupt)?;
        Ok(hidden.chunks_exact(self.spec().width).map(|hidden| head.score(hidden, causal)).collect())
    }

    /// Query and document as one text.
    fn pair(&self, query: &str, document: &str, interrupt: &dyn Interrupt) -> Result<Vec<u32>> {
        let (file, tokenizer) = (self.gguf(), self.tokenizer());
        if let Some(template) = file.str(TEMPLATE)? {
            // In one pass, so that a query with "{document}" in it is a text as any other.
            let mut text = String::with_capacity(template.len() + query.len() + document.len());
            let mut rest = template;
            while let Some(at) = rest.find('{') {
                text.push_str(&rest[..at]);
                rest = &rest[at..];
                let (filled, after) = match rest {
                    _ if rest.starts_with("{query}") => (query, "{query}".len()),
                    _ if rest.starts_with("{document}") => (document, "{document}".len()),
                    _ => ("{", 1),
                };
                text.push_str(filled);
                rest = &rest[after..];
            }
            text.push_str(rest);
            return tokenizer.encode(&text, false, true, interrupt);
        }
        if self.spec().causal {
            return Err(Error::UnsupportedModel(format!(
                "{}: rerank needs to know what query and document are put into, and the key {TEMPLATE} is missing",
                file.path().display()
            )));
        }
        // BERT has a row for the tokens of the second text, which the encoder here does not add.
        if self.spec().token_types > 1 {
            return Err(Error::UnsupportedModel(format!(
                "{}: rerank of a model with {} token types is not supported: scores would differ from those it was trained for",
                file.path().display(),
                self.spec().token_types
            )));
        }
        // [CLS] query [SEP] document [SEP] of BERT, <s> query </s></s> document </s> of RoBERTa; special tokens in the texts are text.
        let mut tokens = tokenizer.encode(query, true, false, interrupt)?;
        if !tokenizer.kind().starts_with("bert") {
            tokens.extend(tokenizer.eos().or(tokenizer.separator()));
        }
        let document = tokenizer.encode(document, true, false, interrupt)?;
        let begins = tokenizer.bos().is_some_and(|bos| tokenizer.add_bos() && document.first() == Some(&bos));
        tokens.extend(&document[usize::from(begins)..]);
        Ok(tokens)
    }
}
