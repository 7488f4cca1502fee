//! Writes a tiny random model with a tokenizer and a chat template, for tests of everything above the forward pass.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::Path;

use fastq_core::Never;
use fastq_core::gguf::value::Array;
use fastq_core::gguf::writer::Writer;
use fastq_core::gguf::{TensorType, Value};
use fastq_core::sampler::philox::uniform;
use fastq_kernels::Format;

/// Control tokens, then the 256 bytes, then letters and the space of SentencePiece.
pub(crate) const UNKNOWN: u32 = 0;
/// Beginning of a text.
pub(crate) const BOS: u32 = 1;
/// End of a text.
pub(crate) const EOS: u32 = 2;
/// The token of byte 0.
pub(crate) const BYTES: u32 = 3;
/// The token of `a`.
pub(crate) const LETTER_A: u32 = 260;
/// Number of tokens.
pub(crate) const VOCABULARY: usize = 286;
/// What the model says it was trained for.
pub(crate) const CONTEXT: usize = 256;

const WIDTH: u64 = 32;
const FEED_FORWARD: u64 = 64;
const LAYERS: usize = 2;

/// Writes the chat template's shape: `<s>` once, then `role:content</s>` per message, then `assistant:`.
pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/// What a tiny model may lack.
#[derive(Clone, Copy)]
pub(crate) struct Tiny {
    /// It has a chat template.
    pub(crate) template: bool,
    /// It has a beginning token.
    pub(crate) bos: bool,
    /// All logits come out as NaN.
    pub(crate) damaged: bool,
}

impl Default for Tiny {
    fn default() -> Tiny {
        Tiny { template: true, bos: true, damaged: false }
    }
}

/// Writes the model to `path`: llama, two layers, F32.
pub(crate) fn write(path: &Path, tiny: Tiny) {
    let mut tokens: Vec<Vec<u8>> = vec![b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
    tokens.push("▁".into());
    tokens.extend((b'a'..=b'z').map(|letter| vec![letter]));
    assert_eq!(tokens.len(), VOCABULARY);
    let kinds: Vec<i32> = (0..VOCABULARY as u32)
        .map(|id| match id {
            UNKNOWN => 2,
            BOS | EOS => 3,
            BYTES..=258 => 6,
            _ => 1,
        })
        .collect();

    let mut pairs: Vec<(&str, Value)> = vec![
        ("general.architecture", "llama".into()),
        ("general.name", "tiny".into()),
        ("llama.context_length", (CONTEXT as u32).into()),
        ("llama.block_count", (LAYERS as u32).into()),
        ("llama.embedding_length", (WIDTH as u32).into()),
        ("llama.feed_forward_length", (FEED_FORWARD as u32).into()),
        ("llama.attention.head_count", 2u32.into()),
        ("llama.attention.head_count_kv", 1u32.into()),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5f32.into()),
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", Array::from_strings(&tokens).into()),
        ("tokenizer.ggml.scores", Array::from(vec![0.0f32; VOCABULARY].as_slice()).into()),
        ("tokenizer.ggml.token_type", Array::from(kinds.as_slice()).into()),
        ("tokenizer.ggml.eos_token_id", EOS.into()),
        ("tokenizer.ggml.add_space_prefix", false.into()),
    ];
    // Without a beginning token: an id that stands for none.
    pairs.push(("tokenizer.ggml.bos_token_id", if tiny.bos { BOS } else { u32::MAX }.into()));
    pairs.push(("tokenizer.ggml.add_bos_token", tiny.bos.into()));
    if tiny.template {
        pairs.push(("tokenizer.chat_template", TEMPLATE.into()));
    }

    let vocabulary = VOCABULARY as u64;
    let mut shapes: Vec<(String, Vec<u64>)> = vec![
        ("token_embd.weight".into(), vec![WIDTH, vocabulary]),
        ("output_norm.weight".into(), vec![WIDTH]),
        ("output.weight".into(), vec![WIDTH, vocabulary]),
    ];
    for layer in 0..LAYERS {
        let parts: [(&str, &[u64]); 9] = [
            ("attn_norm", &[WIDTH]),
            ("attn_q", &[WIDTH, WIDTH]),
            ("attn_k", &[WIDTH, WIDTH / 2]),
            ("attn_v", &[WIDTH, WIDTH / 2]),
            ("attn_output", &[WIDTH, WIDTH]),
            ("ffn_norm", &[WIDTH]),
            ("ffn_gate", &[WIDTH, FEED_FORWARD]),
            ("ffn_up", &[WIDTH, FEED_FORWARD]),
            ("ffn_down", &[FEED_FORWARD, WIDTH]),
        ];
        shapes.extend(parts.map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape.to_vec())));
    }
    let data: Vec<Vec<u8>> = shapes
        .iter()
        .enumerate()
        .map(|(tensor, (name, shape))| {
            let elements: u64 = shape.iter().product();
            let value = |at: u64| match shape.len() {
                1 if tiny.damaged && name == "output_norm.weight" => f32::NAN,
                1 => 1.0,
                _ => (uniform(tensor as u64, at) as f32 - 0.5) * 0.6,
            };
            (0..elements).flat_map(|at| value(at).to_le_bytes()).collect()
        })
        .collect();

    let mut writer = Writer::new();
    for (key, value) in pairs {
        writer.set(key, value).unwrap();
    }
    for ((name, shape), data) in shapes.iter().zip(&data) {
        writer.tensor(name, shape, TensorType::Kernel(Format::F32), data).unwrap();
    }
    writer.write(path, &Never).unwrap();
}
