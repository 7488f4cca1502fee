//! What `tokenizer.ggml.model` may name, and what each name means where a file says nothing else: the defaults of llama.cpp. It also knows
//! `rwkv`, `plamo2`, `hybriddna` and `whitespace`, which are left out.

use super::special::Named;
use crate::gguf::Gguf;
use crate::{Error, Result};

const MODEL: &str = "tokenizer.ggml.model";

/// How texts are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Bpe,
    Spm,
    WordPiece,
    Unigram,
}

/// A kind of tokenizer.
pub(super) struct Family {
    model: &'static str,
    /// What it is called outside.
    pub(super) kind: &'static str,
    pub(super) algorithm: Algorithm,
    /// The pre-tokenizer, whatever the file says.
    pub(super) pre: Option<&'static str>,
    pub(super) named: Named,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) add_space_prefix: bool,
}

const FAMILIES: &[Family] = &[
    Family {
        model: "gpt2",
        kind: "gpt2",
        algorithm: Algorithm::Bpe,
        pre: None,
        named: Named::NONE,
        // Pre-tokenizers have defaults of their own.
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
    },
    Family {
        model: "gemma4",
        kind: "gpt2",
        algorithm: Algorithm::Bpe,
        pre: Some("gemma4"),
        named: Named::NONE,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
    },
    Family {
        model: "llama",
        kind: "llama-spm",
        algorithm: Algorithm::Spm,
        pre: None,
        named: Named { bos: Some(1), eos: Some(2), unknown: Some(0), ..Named::NONE },
        add_bos: true,
        add_eos: false,
        add_space_prefix: true,
    },
    Family {
        model: "bert",
        kind: "bert-wordpiece",
        algorithm: Algorithm::WordPiece,
        pre: None,
        named: Named {
            bos: Some(101),
            unknown: Some(100),
            separator: Some(102),
            padding: Some(0),
            mask: Some(103),
            ..Named::NONE
        },
        add_bos: true,
        add_eos: false,
        add_space_prefix: false,
    },
    Family {
        model: "t5",
        kind: "t5-unigram",
        algorithm: Algorithm::Unigram,
        pre: None,
        named: Named { eos: Some(1), unknown: Some(2), padding: Some(0), ..Named::NONE },
        add_bos: false,
        add_eos: true,
        add_space_prefix: false,
    },
];

impl Family {
    /// The family that `file` names.
    pub(super) fn from_gguf(file: &Gguf) -> Result<&'static Family> {
        let Some(model) = file.str(MODEL)? else {
            return Err(file.error(format!("key `{MODEL}` is missing: the file has no tokenizer")));
        };
        FAMILIES.iter().find(|family| family.model == model).ok_or_else(|| {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.model).collect();
            let path = file.path().display();
            let what = format!("{path}: key `{MODEL}` must be one of {}, found {model:?}", known.join(" "));
            Error::UnsupportedModel(what)
        })
    }
}
