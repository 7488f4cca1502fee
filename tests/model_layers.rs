//! Layer by layer: the bits of the whole pass, every input of every matrix, and other weights in place of those of the file.

#[path = "model/tiny.rs"]
mod tiny;

use std::collections::{BTreeMap, HashMap};

use fastq_core::model::{Input, Observer, Replacement};
use fastq_core::{BatchItem, LoadOptions, Logits, Model, Never, Result};
use fastq_kernels::Format;
use tiny::{Tiny, VOCABULARY, tokens};

/// Chunks are shorter than the longest text, and hold several of the short ones.
fn options(threads: usize) -> LoadOptions {
    LoadOptions { threads: Some(threads), prefill_chunk: 32, ..LoadOptions::default() }
}

fn texts() -> Vec<Vec<u32>> {
    [5, 70, 1, 9, 12, 33].iter().enumerate().map(|(seed, len)| tokens(seed as u64, *len)).collect()
}

/// Logits of all positions of every text.
fn whole(model: &Model, texts: &[Vec<u32>]) -> Vec<f32> {
    let mut all = Vec::new();
    for tokens in texts {
        let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
        let item = BatchItem { sequence: &mut sequence, tokens, logits: Logits::All, out: &mut out };
        model.forward(&mut [item], &Never).expect("computes");
        all.extend(out);
    }
    all
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Logits of all positions, computed layer by layer.
fn layered(model: &Model, texts: &[Vec<u32>], mut observer: Option<&mut dyn Observer>) -> Vec<f32> {
    let mut states = model.embed_states(texts, &Never).expect("embeds");
    for layer in 0..model.spec().layers.len() {
        let observer = observer.as_mut().map(|observer| &mut **observer as &mut dyn Observer);
        model.advance(&mut states, layer, observer, &Never).expect("computes");
    }
    let mut out = Vec::new();
    model.logits_of(&states, 0..states.rows(), &mut out, observer, &Never).expect("computes");
    out
}

/// Rows and length of what was seen, by tensor and expert.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<(String, Option<usize>), (usize, usize)>,
    inputs: BTreeMap<String, Vec<f32>>,
    keep: Vec<&'static str>,
}

impl Observer for Seen {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        assert!(input.k > 0 && input.x.len().is_multiple_of(input.k));
        for name in input.tensors {
            let (rows, k) = self.rows.entry(((*name).to_owned(), input.expert)).or_default();
            *rows += input.x.len() / input.k;
            *k = input.k;
            if self.keep.contains(name) {
                self.inputs.entry((*name).to_owned()).or_default().extend(input.x);
            }
        }
        Ok(())
    }
}

fn families() -> [Tiny; 6] {
    [tiny::llama(), tiny::gemma(), tiny::gpt_oss(), tiny::granitemoe(), tiny::lfm2(), tiny::qwen35()]
}

#[test]
fn layer_by_layer_has_the_bits_of_the_whole() {
    let texts = texts();
    for tiny in families() {
        for threads in [1, 2] {
            let model = tiny.load(&options(threads)).expect("loads");
            let expected = bits(&whole(&model, &texts));
            let name = tiny.architecture;
            assert!(bits(&layered(&model, &texts, None)) == expected, "{name} on {threads} threads");
            let mut seen = Seen::default();
            assert!(bits(&layered(&model, &texts, Some(&mut seen))) == expected, "{name} with an observer");
            assert!(bits(&whole(&model, &texts)) == expected, "{name} afterwards");
        }
    }
}

#[test]
fn every_input_of_every_matrix_is_seen_once() {
    let texts = texts();
    let count: usize = texts.iter().map(Vec::len).sum();
    for tiny in families() {
        let model = tiny.load(&options(2)).expect("loads");
        let mut seen = Seen::default();
        layered(&model, &texts, Some(&mut seen));
        let (experts, others): (Vec<_>, Vec<_>) = seen.rows.iter().partition(|((_, expert), _)| expert.is_some());
        let mut found: Vec<&str> = others.iter().map(|((name, _), _)| name.as_str()).collect();
        for ((name, _), (rows, k)) in &others {
            assert_eq!(*rows, count, "{}: {name}", tiny.architecture);
            assert_eq!(*k as u64, model.gguf().tensor(name).expect("is in the file").k(), "{name}");
        }
        let mut slots = BTreeMap::<&str, usize>::new();
        for ((name, _), (rows, _)) in experts {
            *slots.entry(name).or_default() += rows;
        }
        for (name, rows) in slots {
            assert_eq!(rows, count * tiny.experts.expect("experts").used, "{}: {name}", tiny.architecture);
            found.push(name);
        }
        // Matrices of the file but for the embedding, unless it is the output matrix, too; filters are none.
        let is_matrix = |name: &str| {
            name.ends_with(".weight")
                && !name.contains("norm")
                && !name.contains("conv1d")
                && !name.contains("shortconv.conv.")
                && !name.contains("sinks")
                && (name != "token_embd.weight" || tiny.tied)
        };
        let ignored = &model.info().ignored_tensors;
        let mut expected: Vec<&str> = model.gguf().tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        expected.retain(|name| is_matrix(name) && !ignored.iter().any(|ignored| ignored == name));
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", tiny.architecture);
    }
}

/// The inputs are those of the products: with weights of F32, products computed here are what comes out.
#[test]
fn the_inputs_are_exact() {
    let texts = texts();
    let tiny = Tiny { formats: &[Format::F32], ..tiny::llama() };
    let model = tiny.load(&options(2)).expect("loads");
    let floats = |name: &str| -> Vec<f64> {
        let data = model.gguf().tensor_data(model.gguf().tensor(name).expect("is there"));
        data.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
    };
    let mut seen = Seen { keep: vec!["blk.0.attn_k.weight", "output.weight"], ..Seen::default() };
    let logits = layered(&model, &texts, Some(&mut seen));
    let close = |found: f64, expected: f64| (found - expected).abs() <= 1e-5 * (1.0 + expected.abs());

    let (output, x) = (floats("output.weight"), &seen.inputs["output.weight"]);
    for (row, logits) in x.chunks_exact(tiny.width).zip(logits.chunks_exact(VOCABULARY)) {
        for (weights, found) in output.chunks_exact(tiny.width).zip(logits).step_by(37) {
            let product: f64 = weights.iter().zip(row).map(|(w, x)| w * f64::from(*x)).sum();
            assert!(close(f64::from(*found), product), "{found} for {product}");
        }
    }
    let (embedding, norm) = (floats("token_embd.weight"), floats("blk.0.attn_norm.weight"));
    let x = &seen.inputs["blk.0.attn_k.weight"];
    for (row, token) in x.chunks_exact(tiny.width).zip(texts.iter().flatten()) {
        let hidden = &embedding[*token as usize * tiny.width..][..tiny.width];
        let square = hidden.iter().map(|v| v * v).sum::<f64>() / tiny.width as f64;
        for ((found, hidden), weight) in row.iter().zip(hidden).zip(&norm) {
            let expected = hidden / (square + 1e-5).sqrt() * weight;
            assert!(close(f64::from(*found), expected), "{found} for {expected}");
        }
    }
}

/// The tensors of a file, to be put into another model.
fn all_of(model: &Model, wanted: impl Fn(&str) -> bool) -> HashMap<String, Replacement> {
    let file = model.gguf();
    let tensors = file.tensors().iter().filter(|tensor| wanted(&tensor.name));
    let replacement = |data: &[u8], ty| Replacement { ty, data: data.into() };
    tensors.map(|tensor| (tensor.name.clone(), replacement(file.tensor_data(tensor), tensor.ty))).collect()
}

#[test]
fn replaced_tensors_are_as_good_as_those_of_a_file() {
    let texts = texts();
    for base in [tiny::llama(), tiny::gpt_oss(), tiny::lfm2(), tiny::qwen35()] {
        // Other matrices in another order of types, and other vectors.
        let formats: &'static [Format] = match base.architecture {
            "llama" => &[Format::Q6_K, Format::Q4_K, Format::Q8_0],
            _ => &[Format::F16, Format::F32],
        };
        let other = Tiny { formats, ..base.clone() };
        let (base, other) = (base.load(&options(2)).expect("loads"), other.load(&options(2)).expect("loads"));
        let (own, expected) = (bits(&whole(&base, &texts)), bits(&whole(&other, &texts)));
        assert!(own != expected);
        let replaced = base.with_replaced(&all_of(&other, |_| true)).expect("fits");
        assert!(bits(&whole(&replaced, &texts)) == expected, "{}", base.spec().name);
        assert!(bits(&layered(&replaced, &texts, None)) == expected, "{}", base.spec().name);
        assert!(bits(&whole(&base, &texts)) == own, "the model itself stays");
        // In two steps, the second on top of the first.
        let first = base.with_replaced(&all_of(&other, |name| name.starts_with("blk."))).expect("fits");
        assert!(bits(&whole(&first, &texts)) != expected);
        let second = first.with_replaced(&all_of(&other, |name| !name.starts_with("blk."))).expect("fits");
        assert!(bits(&whole(&second, &texts)) == expected, "{}", base.spec().name);
    }
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let model = tiny::llama().load(&options(1)).expect("loads");
    let float = model.gguf().tensor("blk.0.attn_norm.weight").expect("is there").ty;
    let types: Vec<_> = model.gguf().tensors().iter().map(|tensor| tensor.ty).collect();
    let q8_0 = *types.iter().find(|ty| ty.name() == "Q8_0").expect("all types are used");
    let refused = |name: &str, ty, bytes: usize| {
        let replacement = Replacement { ty, data: vec![0; bytes].into() };
        let map = HashMap::from([(name.to_owned(), replacement)]);
        model.with_replaced(&map).expect_err("refused").to_string()
    };
    for (message, part) in [
        (refused("blk.9.attn_q.weight", float, 4), "no tensor \"blk.9.attn_q.weight\""),
        (refused("blk.0.attn_q.weight", float, 4), "expected 262144 bytes, found 4"),
        (refused("blk.0.attn_norm.weight", q8_0, 272), "must be replaced by F32, F16 or BF16, found Q8_0"),
    ] {
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }
}

#[test]
fn steps_out_of_order_are_refused() {
    let model = tiny::llama().load(&options(1)).expect("loads");
    let texts = texts();
    let mut states = model.embed_states(&texts, &Never).expect("embeds");
    let message = model.advance(&mut states, 1, None, &Never).expect_err("layer 0 is next").to_string();
    assert!(message.contains("before layer 0, not before 1"), "{message}");
    let mut out = vec![1.0];
    assert!(model.logits_of(&states, 0..1, &mut out, None, &Never).is_err() && out.is_empty());
    let fork = states.clone();
    model.advance(&mut states, 0, None, &Never).expect("is next");
    assert_eq!((fork.layer(), states.layer()), (Some(0), Some(1)));
    // A cancelled step leaves nothing that could be mistaken for states.
    assert!(model.advance(&mut states, 1, None, &|| true).is_err());
    assert_eq!(states.layer(), None);
    let message = model.advance(&mut states, 1, None, &Never).expect_err("useless").to_string();
    assert!(message.contains("failed halfway"), "{message}");
    assert!(model.embed_states(&[vec![]], &Never).is_err());
    assert!(model.embed_states(&[vec![VOCABULARY as u32]], &Never).is_err());
    assert!(model.embed_states(&[vec![0; 513]], &Never).is_err());
    assert_eq!(model.embed_states(&[], &Never).expect("nothing to do").rows(), 0);
}
