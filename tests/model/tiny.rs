//! Small random models, written when a test asks for them.

use std::path::Path;

use fastq_core::gguf::{Array, TensorType, Value, Writer};
use fastq_core::{LoadOptions, Model, Never};
use fastq_kernels::testing::{self, Bits, Rng};
use fastq_kernels::{Cpu, Format};

/// A model to write.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head: usize,
    pub(crate) feed_forward: usize,
    pub(crate) context: usize,
    pub(crate) window: usize,
    pub(crate) experts: Option<Experts>,
    pub(crate) biases: bool,
    pub(crate) tied: bool,
    /// Which layers carry a state in place of attention, in turn.
    pub(crate) recurrent: &'static [bool],
    /// Types of the matrices, in turn.
    pub(crate) formats: &'static [Format],
    /// Keys added or replaced.
    pub(crate) keys: Vec<(String, Value)>,
    /// Tensors left out.
    pub(crate) without: Vec<String>,
    /// A tensor whose first values become NaN.
    pub(crate) damaged: Option<String>,
    /// The biases of the routers; random ones if there are none here.
    pub(crate) router_bias: &'static [f32],
}

/// The experts of a model; they are as wide as its `feed_forward`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    pub(crate) used: usize,
    /// Width of the one that every row meets; 0 for none.
    pub(crate) shared: usize,
}

pub(crate) const VOCABULARY: usize = 300;
/// Value heads of a delta net, key heads, and the length of both: more than a thread takes at once.
const DELTA_HEADS: usize = 6;
const DELTA_KEY_HEADS: usize = 2;
const DELTA_SIZE: usize = 72;

/// An lfm2 with convolutions first and last, of a width that is no whole number of lanes' blocks.
pub(crate) fn lfm2() -> Tiny {
    Tiny {
        architecture: "lfm2",
        layers: 4,
        width: 200,
        heads: 4,
        kv_heads: 2,
        head: 50,
        feed_forward: 160,
        recurrent: &[true, false, true],
        formats: &[Format::F32, Format::F16, Format::BF16],
        keys: vec![("lfm2.shortconv.l_cache".into(), 3u32.into())],
        biases: false,
        ..llama()
    }
}

/// A qwen35 with three value heads to one key head, after every third layer one with attention, and one more layer that predicts
/// further tokens.
pub(crate) fn qwen35() -> Tiny {
    let key = |name: &str, value: u32| (format!("qwen35.{name}"), Value::from(value));
    Tiny {
        architecture: "qwen35",
        layers: 5,
        width: 120,
        heads: 3,
        kv_heads: 1,
        head: 40,
        feed_forward: 136,
        recurrent: &[true, true, true, false, true],
        formats: &[Format::F32, Format::F16, Format::BF16],
        keys: vec![
            key("ssm.conv_kernel", 4),
            key("ssm.state_size", DELTA_SIZE as u32),
            key("ssm.group_count", DELTA_KEY_HEADS as u32),
            key("ssm.time_step_rank", DELTA_HEADS as u32),
            key("ssm.inner_size", (DELTA_HEADS * DELTA_SIZE) as u32),
            key("rope.dimension_count", 16),
            ("qwen35.rope.dimension_sections".into(), Value::Array(Array::from([3i32, 3, 2, 0].as_slice()))),
        ],
        biases: false,
        ..llama()
    }
}

/// A llama with matrices of all types, two query heads per kv head and biases.
pub(crate) fn llama() -> Tiny {
    Tiny {
        architecture: "llama",
        layers: 3,
        width: 256,
        heads: 4,
        kv_heads: 2,
        head: 64,
        feed_forward: 256,
        context: 512,
        window: 0,
        experts: None,
        biases: true,
        tied: false,
        recurrent: &[false],
        formats: Format::ALL,
        keys: Vec::new(),
        without: Vec::new(),
        damaged: None,
        router_bias: &[],
    }
}

/// A gemma3 of odd sizes with a window of 20 in six of seven layers.
pub(crate) fn gemma() -> Tiny {
    Tiny {
        architecture: "gemma3",
        layers: 7,
        width: 96,
        heads: 3,
        kv_heads: 1,
        head: 32,
        feed_forward: 160,
        context: 1024,
        window: 20,
        experts: None,
        biases: false,
        tied: true,
        recurrent: &[false],
        formats: &[Format::Q4_0, Format::F16, Format::Q8_0, Format::Q5_1, Format::Q4_1, Format::F32, Format::Q5_0],
        keys: Vec::new(),
        without: Vec::new(),
        damaged: None,
        router_bias: &[],
    }
}

/// A gpt-oss: biases of everything, sinks, a window of 20 in every second layer, three of seven experts.
pub(crate) fn gpt_oss() -> Tiny {
    Tiny {
        architecture: "gpt-oss",
        layers: 3,
        width: 96,
        heads: 4,
        kv_heads: 2,
        head: 32,
        feed_forward: 64,
        context: 1024,
        window: 20,
        experts: Some(Experts { count: 7, used: 3, shared: 0 }),
        recurrent: &[false],
        biases: true,
        tied: false,
        formats: &[Format::MXFP4, Format::Q8_0, Format::BF16, Format::F32, Format::Q4_0],
        keys: Vec::new(),
        without: Vec::new(),
        damaged: None,
        router_bias: &[],
    }
}

/// A granitemoe with two of five experts and one that every row meets, in matrices of all types.
pub(crate) fn granitemoe() -> Tiny {
    Tiny {
        architecture: "granitemoe",
        experts: Some(Experts { count: 5, used: 2, shared: 512 }),
        biases: false,
        layers: 4,
        keys: vec![("granitemoe.logit_scale".into(), 2f32.into()), ("granitemoe.residual_scale".into(), 0.5f32.into())],
        ..llama()
    }
}

impl Tiny {
    pub(crate) fn write(&self, path: &Path) {
        let a = self.architecture;
        let number = |value: usize| Value::from(u32::try_from(value).expect("small"));
        let mut tokens: Vec<Vec<u8>> = vec![b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
        tokens.extend((tokens.len()..VOCABULARY).map(|i| format!("t{i}").into_bytes()));
        let types: Vec<i32> =
            (0..VOCABULARY).map(|i| [2, 3, 3].get(i).copied().unwrap_or(if i < 259 { 6 } else { 1 })).collect();
        let scores: Vec<f32> = (0..VOCABULARY).map(|i| -(i as f32)).collect();
        let tensors = self.tensors();
        let mut writer = Writer::new();
        let mut keys: Vec<(String, Value)> = vec![
            ("general.architecture".into(), a.into()),
            ("general.name".into(), "tiny".into()),
            (format!("{a}.context_length"), number(self.context)),
            (format!("{a}.embedding_length"), number(self.width)),
            (format!("{a}.block_count"), number(self.layers)),
            (format!("{a}.feed_forward_length"), number(self.feed_forward)),
            (format!("{a}.attention.head_count"), number(self.heads)),
            (format!("{a}.attention.head_count_kv"), self.heads_of_layers()),
            (format!("{a}.attention.key_length"), number(self.head)),
            (format!("{a}.attention.value_length"), number(self.head)),
            (format!("{a}.attention.layer_norm_rms_epsilon"), Value::from(1e-5f32)),
            ("tokenizer.ggml.model".into(), "llama".into()),
            ("tokenizer.ggml.tokens".into(), Value::Array(Array::from_strings(&tokens))),
            ("tokenizer.ggml.scores".into(), Value::Array(Array::from(scores.as_slice()))),
            ("tokenizer.ggml.token_type".into(), Value::Array(Array::from(types.as_slice()))),
            ("tokenizer.ggml.bos_token_id".into(), number(1)),
            ("tokenizer.ggml.eos_token_id".into(), number(2)),
            ("tokenizer.ggml.unknown_token_id".into(), number(0)),
        ];
        if self.window > 0 {
            keys.push((format!("{a}.attention.sliding_window"), number(self.window)));
        }
        if let Some(Experts { count, used, shared }) = self.experts {
            keys.push((format!("{a}.expert_count"), number(count)));
            keys.push((format!("{a}.expert_used_count"), number(used)));
            keys.push((format!("{a}.expert_feed_forward_length"), number(self.feed_forward)));
            keys.push((format!("{a}.expert_shared_feed_forward_length"), number(shared)));
        }
        keys.extend(self.keys.iter().cloned());
        for (key, value) in keys {
            writer.set(&key, value).expect("a valid key");
        }
        for (name, shape, format, data) in &tensors {
            let ty = TensorType::from_name(format.name()).expect("a type of the file");
            writer.tensor(name, shape, ty, data).expect("a valid tensor");
        }
        writer.write(path, &Never).expect("the model is written");
    }

    /// Whether a layer carries a state.
    fn is_recurrent(&self, layer: usize) -> bool {
        self.recurrent[layer % self.recurrent.len()]
    }

    /// Key and value heads: one number, or one for each layer of an lfm2.
    fn heads_of_layers(&self) -> Value {
        let heads = |layer| if self.is_recurrent(layer) { 0 } else { self.kv_heads as u32 };
        match self.architecture {
            "lfm2" => Value::Array(Array::from((0..self.layers).map(heads).collect::<Vec<_>>().as_slice())),
            _ => Value::from(self.kv_heads as u32),
        }
    }

    /// Name, k and rows (none: a vector) of what a layer has to mix positions.
    fn mixer(&self, layer: usize) -> Vec<(&'static str, usize, Option<usize>)> {
        let d = self.width;
        let (q, kv) = (self.heads * self.head, self.kv_heads * self.head);
        if self.is_recurrent(layer) && self.architecture == "qwen35" {
            let (values, channels) = (DELTA_HEADS * DELTA_SIZE, (DELTA_HEADS + 2 * DELTA_KEY_HEADS) * DELTA_SIZE);
            return vec![
                ("attn_qkv.weight", d, Some(channels)),
                ("attn_gate.weight", d, Some(values)),
                ("ssm_conv1d.weight", 4, Some(channels)),
                ("ssm_dt.bias", DELTA_HEADS, None),
                ("ssm_a", DELTA_HEADS, None),
                ("ssm_beta.weight", d, Some(DELTA_HEADS)),
                ("ssm_alpha.weight", d, Some(DELTA_HEADS)),
                ("ssm_norm.weight", DELTA_SIZE, None),
                ("ssm_out.weight", values, Some(d)),
            ];
        }
        if self.is_recurrent(layer) {
            return vec![
                ("shortconv.conv.weight", 3, Some(d)),
                ("shortconv.in_proj.weight", d, Some(3 * d)),
                ("shortconv.out_proj.weight", d, Some(d)),
            ];
        }
        let mut list = vec![
            ("attn_q.weight", d, Some(if self.architecture == "qwen35" { 2 * q } else { q })),
            ("attn_k.weight", d, Some(kv)),
            ("attn_v.weight", d, Some(kv)),
            ("attn_output.weight", q, Some(d)),
        ];
        if matches!(self.architecture, "gemma3" | "lfm2" | "qwen35") {
            list.extend([("attn_q_norm.weight", self.head, None), ("attn_k_norm.weight", self.head, None)]);
        }
        list
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>, Format, Vec<u8>)> {
        let (d, f) = (self.width, self.feed_forward);
        let (q, kv) = (self.heads * self.head, self.kv_heads * self.head);
        let gemma = self.architecture == "gemma3";
        let gpt_oss = self.architecture == "gpt-oss";
        let output_norm = if self.architecture == "lfm2" { "token_embd_norm.weight" } else { "output_norm.weight" };
        // Name, k and the other dimensions; vectors have none of these, and those of experts one.
        let mut list: Vec<(String, usize, Vec<usize>)> =
            vec![("token_embd.weight".into(), d, vec![VOCABULARY]), (output_norm.into(), d, vec![])];
        if !self.tied {
            list.push(("output.weight".into(), d, vec![VOCABULARY]));
        }
        for layer in 0..self.layers {
            let b = format!("blk.{layer}.");
            let mut push = |name: &str, k: usize, outer: &[usize]| list.push((b.clone() + name, k, outer.to_vec()));
            push("attn_norm.weight", d, &[]);
            for (name, k, rows) in self.mixer(layer) {
                push(name, k, rows.as_slice());
            }
            let after_attention = gpt_oss || self.architecture == "qwen35";
            push(if after_attention { "post_attention_norm.weight" } else { "ffn_norm.weight" }, d, &[]);
            match self.experts {
                None => {
                    push("ffn_gate.weight", d, &[f]);
                    push("ffn_up.weight", d, &[f]);
                    push("ffn_down.weight", f, &[d]);
                }
                Some(Experts { count, shared, .. }) => {
                    push("ffn_gate_inp.weight", d, &[count]);
                    push("ffn_gate_exps.weight", d, &[f, count]);
                    push("ffn_up_exps.weight", d, &[f, count]);
                    push("ffn_down_exps.weight", f, &[d, count]);
                    if shared > 0 {
                        push("ffn_gate_shexp.weight", d, &[shared]);
                        push("ffn_up_shexp.weight", d, &[shared]);
                        push("ffn_down_shexp.weight", shared, &[d]);
                    }
                }
            }
            if gemma {
                push("post_attention_norm.weight", d, &[]);
                push("post_ffw_norm.weight", d, &[]);
            }
            if gpt_oss {
                push("attn_sinks.weight", self.heads, &[]);
            }
            if self.biases {
                push("attn_q.bias", q, &[]);
                push("attn_k.bias", kv, &[]);
                push("attn_v.bias", kv, &[]);
                push("attn_output.bias", d, &[]);
                match self.experts {
                    None => {
                        push("ffn_gate.bias", f, &[]);
                        push("ffn_up.bias", f, &[]);
                        push("ffn_down.bias", d, &[]);
                    }
                    Some(Experts { count, .. }) => {
                        push("ffn_gate_inp.bias", count, &[]);
                        push("ffn_gate_exps.bias", f, &[count]);
                        push("ffn_up_exps.bias", f, &[count]);
                        push("ffn_down_exps.bias", d, &[count]);
                    }
                }
            }
        }
        let mut rng = Rng::new(7);
        let mut turn = self.formats.iter().cycle();
        list.into_iter()
            .filter(|(name, ..)| !self.without.contains(name))
            .map(|(name, k, outer)| {
                let rows: usize = outer.iter().product();
                let bias = name.ends_with("bias");
                let matrix = !outer.is_empty() && !bias;
                let converted = !matrix || name.contains("conv");
                let format = if converted { Format::F32 } else { *turn.next().expect("a cycle") };
                let mut values: Vec<f32> = (0..k * rows)
                    .map(|_| match (matrix, bias) {
                        (true, _) => rng.bell() * 1.5 / (k as f32).sqrt(),
                        (false, true) => rng.bell() * 0.2,
                        (false, false) if name.ends_with("ssm_a") => -0.2 * (1.0 + rng.unit()),
                        (false, false) => 1.0 + rng.bell() * 0.1,
                    })
                    .collect();
                if self.damaged.as_ref() == Some(&name) {
                    values[..k].fill(f32::NAN);
                }
                if name.ends_with("ffn_gate_inp.bias") && !self.router_bias.is_empty() {
                    values.copy_from_slice(self.router_bias);
                }
                let mut data = vec![0; format.row_bytes(k).expect("whole blocks") * rows];
                // Those with points of a grid need more than values, and do not keep a NaN.
                let grid = ["IQ1", "IQ2", "IQ3"].iter().any(|family| format.name().starts_with(family));
                let cpu = Cpu::detect().expect("a level");
                let row_bytes = format.row_bytes(k).expect("whole blocks");
                if !grid {
                    for (row, out) in values.chunks_exact(k).zip(data.chunks_exact_mut(row_bytes)) {
                        format.quantize_row(cpu, row, None, out).expect("no importance needed");
                    }
                } else {
                    data = random_blocks(&mut rng, format, &values, k);
                }
                let shape = [k].into_iter().chain(outer).map(|len| len as u64).collect();
                (name, shape, format, data)
            })
            .collect()
    }

    /// Writes and loads.
    pub(crate) fn load(&self, options: &LoadOptions) -> fastq_core::Result<Model> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tiny.gguf");
        self.write(&path);
        // The map outlives the file; `mmap: false` in tests that check for changes.
        Model::load(&path, &LoadOptions { mmap: false, ..options.clone() }, &Never)
    }
}

/// Blocks of a format with a grid: any points, of about the size that weights of rows of `k` have; with a scale of NaN
/// where the values are.
fn random_blocks(rng: &mut Rng, format: Format, values: &[f32], k: usize) -> Vec<u8> {
    let info = format.info();
    let mut data = testing::blocks(rng, format, values.len() / info.block, Bits::Sensible);
    for (block, values) in data.chunks_exact_mut(info.bytes).zip(values.chunks_exact(info.block)) {
        let factor = if values[0].is_nan() { f32::NAN } else { 1.5 / (k as f32).sqrt() };
        for scale in info.scales {
            let value = scale.get(block);
            scale.set(block, value * factor);
        }
    }
    data
}

/// Tokens that differ from text to text.
pub(crate) fn tokens(seed: u64, len: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.below(VOCABULARY) as u32).collect()
}
