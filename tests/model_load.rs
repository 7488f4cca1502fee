//! Loading: what is wrong with a file is said before anything is computed; plans that do not fit are refused.

#[path = "model/tiny.rs"]
mod tiny;

use fastq_core::gguf::{Array, Value};
use fastq_core::kv_cache::{GroupLayout, LayerKv};
use fastq_core::machine::FreeMemory;
use fastq_core::memory::Needs;
use fastq_core::{BatchItem, Error, KvFormat, LoadOptions, Logits, Model, Never};
use tiny::{Experts, Tiny, tokens};

fn options() -> LoadOptions {
    LoadOptions { threads: Some(1), ..LoadOptions::default() }
}

/// The error of loading a model with one key changed.
fn with(mut tiny: Tiny, key: &str, value: impl Into<Value>) -> String {
    tiny.keys.push((key.into(), value.into()));
    tiny.load(&options()).expect_err(key).to_string()
}

#[test]
fn wrong_keys_are_named_with_range_and_value() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("llama.block_count", 0u32.into(), "llama.block_count must be from 1 to 512, found 0"),
        ("llama.block_count", 513u32.into(), "from 1 to 512, found 513"),
        ("llama.block_count", (-1i32).into(), "llama.block_count"),
        ("llama.block_count", "2".into(), "llama.block_count"),
        ("llama.block_count", 4u32.into(), "tensor blk.3.attn_norm.weight is missing: expected one of shape [256]"),
        ("llama.embedding_length", u32::MAX.into(), "from 1 to 1048576, found 4294967295"),
        ("llama.embedding_length", 128u32.into(), "must have shape [128, 300], found [256, 300]"),
        ("llama.feed_forward_length", 0u32.into(), "feed_forward_length must be from 1"),
        ("llama.attention.head_count", 0u32.into(), "attention.head_count must be from 1 to 16384, found 0"),
        ("llama.attention.head_count_kv", 3u32.into(), "must divide the 4 heads of layer 0, found 3"),
        ("llama.attention.head_count_kv", 64u32.into(), "must divide the 4 heads"),
        (
            "llama.attention.head_count",
            Value::Array(Array::from([4u32].as_slice())),
            "one element for each of 3 layers, found 1",
        ),
        ("llama.attention.key_length", 0u32.into(), "key_length must be from 1 to 4096, found 0"),
        ("llama.attention.key_length", (1u32 << 30).into(), "key_length must be from 1 to 4096"),
        ("llama.rope.dimension_count", 0u32.into(), "rope.dimension_count must be from 2 to 64, found 0"),
        ("llama.rope.dimension_count", 7u32.into(), "even number up to the head size 64, found 7"),
        ("llama.rope.dimension_count", 66u32.into(), "rope.dimension_count must be from 2 to 64, found 66"),
        ("llama.rope.freq_base", f32::NAN.into(), "rope.freq_base must be a finite number above 0, found NaN"),
        ("llama.rope.freq_base", f32::INFINITY.into(), "finite number above 0, found inf"),
        (
            "llama.attention.layer_norm_rms_epsilon",
            0f32.into(),
            "layer_norm_rms_epsilon must be a finite number above 0, found 0",
        ),
        ("llama.context_length", 0u32.into(), "context_length must be from 1 to 1073741824, found 0"),
        ("llama.vocab_size", 7u32.into(), "vocab_size must be the number of tokens 300, found 7"),
        ("llama.expert_count", u32::MAX.into(), "expert_count must be from 0 to 4096"),
        ("llama.expert_count", 8u32.into(), "llama.expert_used_count is missing: expected an integer from 1 to 4096"),
        ("llama.expert_used_count", 8u32.into(), "expert_used_count must be at most expert_count 0, found 8"),
        ("llama.rope.scaling.type", "dynamic".into(), "rope scaling \"dynamic\" is not supported"),
        (
            "general.architecture",
            "not-an-arch".into(),
            "architecture \"not-an-arch\" is not supported; this version runs llama, mistral3, ",
        ),
        ("general.architecture", 1u32.into(), "general.architecture"),
    ];
    for (key, value, expected) in cases {
        let error = with(tiny::llama(), key, value);
        assert!(error.contains(expected), "{key}: {error:?} lacks {expected:?}");
    }
}

#[test]
fn wrong_keys_of_recurrent_layers_are_named() {
    let heads = |heads: &[u32]| Value::Array(Array::from(heads));
    let cases: Vec<(Tiny, &str, Value, &str)> = vec![
        (tiny::lfm2(), "lfm2.shortconv.l_cache", 1u32.into(), "shortconv.l_cache must be from 2 to 64, found 1"),
        (tiny::lfm2(), "lfm2.shortconv.l_cache", 65u32.into(), "from 2 to 64, found 65"),
        (
            tiny::lfm2(),
            "lfm2.shortconv.l_cache",
            4u32.into(),
            "tensor blk.0.shortconv.conv.weight must have shape [4, 200], found [3, 200]",
        ),
        (
            tiny::lfm2(),
            "lfm2.attention.head_count_kv",
            heads(&[0, 3, 0, 0]),
            "must divide the 4 heads of layer 1, found 3",
        ),
        (tiny::lfm2(), "lfm2.attention.head_count_kv", heads(&[0, 2, 0]), "one element for each of 4 layers, found 3"),
        (tiny::lfm2(), "lfm2.attention.head_count_kv", heads(&[0, 2, 2, 0]), "tensor blk.2.attn_q.weight is missing"),
        (tiny::lfm2(), "lfm2.attention.head_count_kv", 0u32.into(), "tensor blk.1.shortconv.in_proj.weight is missing"),
    ];
    let numbers = |numbers: &[i32]| Value::Array(Array::from(numbers));
    let flags = |flags: &[bool]| Value::Array(Array::from(flags));
    let delta: Vec<(&str, Value, &str)> = vec![
        ("ssm.conv_kernel", 1u32.into(), "ssm.conv_kernel must be from 2 to 64, found 1"),
        ("ssm.conv_kernel", 3u32.into(), "tensor blk.0.ssm_conv1d.weight must have shape [3, 720], found [4, 720]"),
        ("ssm.state_size", 0u32.into(), "ssm.state_size must be from 1 to 4096, found 0"),
        (
            "ssm.state_size",
            64u32.into(),
            "ssm.inner_size must be 6 heads of 64 (ssm.time_step_rank, ssm.state_size), found 432",
        ),
        ("ssm.time_step_rank", 16385u32.into(), "ssm.time_step_rank must be from 1 to 16384, found 16385"),
        ("ssm.group_count", 4u32.into(), "ssm.group_count must divide the 6 heads of ssm.time_step_rank, found 4"),
        ("ssm.group_count", 3u32.into(), "tensor blk.0.attn_qkv.weight must have shape [120, 864], found [120, 720]"),
        (
            "rope.dimension_sections",
            numbers(&[3, 3, 2]),
            "must be four numbers, one of the first three above 0, found [3, 3, 2]",
        ),
        ("rope.dimension_sections", numbers(&[0, 0, 0, 8]), "one of the first three above 0"),
        ("full_attention_interval", 0u32.into(), "full_attention_interval must be from 1 to 512, found 0"),
        (
            "full_attention_interval",
            3u32.into(),
            "tensor blk.2.attn_qkv.weight must have shape [120, 320], found [120, 720]",
        ),
        ("attention.recurrent_layers", flags(&[true; 4]), "one element for each of 5 layers, found 4"),
        ("attention.recurrent_layers", flags(&[true; 5]), "tensor blk.3.attn_qkv.weight is missing"),
        ("attention.value_length", 32u32.into(), "attention.value_length must be attention.key_length 40, found 32"),
        ("nextn_predict_layers", 5u32.into(), "nextn_predict_layers must be from 0 to 4, found 5"),
        ("attention.head_count_kv", 0u32.into(), "must divide the 3 heads of layer 3, found 0"),
    ];
    let delta = delta.into_iter().map(|(key, value, expected)| (tiny::qwen35(), key, value, expected));
    for (tiny, key, value, expected) in cases.into_iter().chain(delta) {
        let key = &format!("{}.{}", tiny.architecture, key.trim_start_matches("lfm2."));
        let error = with(tiny, key, value);
        assert!(error.contains(expected), "{key}: {error:?} lacks {expected:?}");
    }
    let mut tiny = tiny::lfm2();
    tiny.keys.clear();
    let error = tiny.load(&options()).expect_err("a key is missing").to_string();
    assert!(error.contains("lfm2.shortconv.l_cache is missing: expected an integer from 2 to 64"), "{error}");
}

#[test]
fn layers_that_predict_further_tokens_are_ignored() {
    let text = tokens(3, 20);
    let facts = |skipped: u32| {
        let mut tiny = Tiny { formats: &[fastq_kernels::Format::F32], ..tiny::qwen35() };
        tiny.keys.push(("qwen35.nextn_predict_layers".into(), skipped.into()));
        let model = tiny.load(&options()).expect("loads");
        let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
        let item = BatchItem { sequence: &mut sequence, tokens: &text, logits: Logits::Last, out: &mut out };
        model.forward(&mut [item], &Never).expect("logits");
        (model.info().layers, model.info().ignored_tensors.len())
    };
    assert_eq!(facts(0), (5, 0));
    // Norms, feed-forward part and delta net of the last layer.
    assert_eq!(facts(1), (4, 5 + 9));
}

#[test]
fn missing_tensors_and_wrong_types_are_named() {
    let mut tiny = tiny::gemma();
    tiny.without = vec!["blk.2.attn_q_norm.weight".into()];
    let error = tiny.load(&options()).expect_err("a norm is missing").to_string();
    assert!(error.contains("tensor blk.2.attn_q_norm.weight is missing: expected one of shape [32]"), "{error}");
    let mut tiny = tiny::llama();
    tiny.without = vec!["output.weight".into()];
    let model = tiny.load(&options()).expect("the output is then the embedding");
    assert_eq!(model.info().parameters + 256 * 300, tiny::llama().load(&options()).expect("loads").info().parameters);
}

#[test]
fn wrong_experts_are_named() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("gpt-oss.expert_count", 6u32.into(), "blk.0.ffn_gate_inp.weight must have shape [96, 6], found [96, 7]"),
        ("gpt-oss.expert_count", 0u32.into(), "expert_used_count must be at most expert_count 0, found 3"),
        ("gpt-oss.expert_used_count", 0u32.into(), "gpt-oss.expert_used_count must be from 1 to 4096, found 0"),
        ("gpt-oss.expert_used_count", 8u32.into(), "expert_used_count must be at most expert_count 7, found 8"),
        ("gpt-oss.expert_feed_forward_length", 0u32.into(), "expert_feed_forward_length must be from 1 to 16777216"),
        (
            "gpt-oss.expert_feed_forward_length",
            32u32.into(),
            "blk.0.ffn_gate_exps.weight must have shape [96, 32, 7], found [96, 64, 7]",
        ),
        (
            "gpt-oss.expert_shared_feed_forward_length",
            32u32.into(),
            "blk.0.ffn_gate_shexp.weight is missing: expected one of shape [96, 32]",
        ),
    ];
    for (key, value, expected) in cases {
        let error = with(tiny::gpt_oss(), key, value);
        assert!(error.contains(expected), "{key}: {error:?} lacks {expected:?}");
    }
    for (name, shape) in
        [("attn_sinks.weight", "[4]"), ("post_attention_norm.weight", "[96]"), ("ffn_down_exps.weight", "[64, 96, 7]")]
    {
        let name = format!("blk.1.{name}");
        let mut tiny = tiny::gpt_oss();
        tiny.without = vec![name.clone()];
        let error = tiny.load(&options()).expect_err("a tensor is missing").to_string();
        assert!(error.contains(&format!("tensor {name} is missing: expected one of shape {shape}")), "{error}");
    }
    let mut gemma = tiny::gemma();
    gemma.keys = vec![("gemma3.expert_count".into(), 4u32.into()), ("gemma3.expert_used_count".into(), 2u32.into())];
    let error = gemma.load(&options()).expect_err("no experts there").to_string();
    assert!(error.contains("a gemma3 model with 4 experts is not supported"), "{error}");
}

#[test]
fn the_facts_count_experts() {
    let experts = Some(Experts { count: 6, used: 1, shared: 0 });
    for (tiny, expected) in [
        (tiny::llama(), (0, 0)),
        (Tiny { experts, ..tiny::llama() }, (6, 1)),
        (tiny::gpt_oss(), (7, 3)),
        (tiny::granitemoe(), (5, 2)),
    ] {
        let model = tiny.load(&options()).expect("loads");
        let info = model.info();
        assert_eq!((info.experts, info.experts_used), expected, "{}", tiny.architecture);
        assert_eq!(info.feed_forward, tiny.feed_forward);
        assert!(info.ignored_tensors.is_empty(), "{:?}", info.ignored_tensors);
    }
}

#[test]
fn damaged_weights_are_named() {
    let mut tiny = tiny::llama();
    tiny.formats = &[fastq_kernels::Format::F32];
    tiny.damaged = Some("blk.1.ffn_up.weight".into());
    let model = tiny.load(&options()).expect("the numbers are not looked at");
    let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
    let tokens = tokens(1, 10);
    let item = BatchItem { sequence: &mut sequence, tokens: &tokens, logits: Logits::Last, out: &mut out };
    let error = model.forward(&mut [item], &Never).expect_err("not finite");
    assert!(
        matches!(&error, Error::NotFinite(what) if what.contains("tensor blk.1.ffn_up.weight holds") && what.contains("after layer 1")),
        "{error}"
    );
    assert!(sequence.is_empty() && out.is_empty());
}

#[test]
fn the_options_are_checked() {
    for (bad, expected) in [
        (LoadOptions { context: Some(0), ..options() }, "context must be from 1"),
        (LoadOptions { prefill_chunk: 0, ..options() }, "prefill_chunk must be from 1"),
        (LoadOptions { threads: Some(0), ..options() }, "threads must be between 1 and 1024, found 0"),
    ] {
        let error = tiny::llama().load(&bad).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_model_without_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("none.gguf");
    assert!(matches!(Model::load(&missing, &options(), &Never), Err(Error::NotFound(_))));
}

#[test]
fn a_plan_that_does_not_fit_says_what_would() {
    let layer = LayerKv { kv_heads: 8, key_dim: 128, value_dim: 128, format: KvFormat::F16 };
    let groups = [GroupLayout::new(None, [layer; 4]), GroupLayout::new(Some(512), [layer; 20])];
    let needs = Needs {
        weights_bytes: 1 << 30,
        weights_mapped: true,
        kv_format: KvFormat::F16,
        groups: &groups,
        state_bytes: 0,
        scratch_bytes: 1 << 20,
        chunk: 512,
        trained_context: 131_072,
    };
    let free = |mib: u64| Some(FreeMemory::new(mib << 20, "free memory"));
    let all = needs.plan(None, None).expect("nothing is known, nothing refused");
    assert_eq!(all.context, 131_072);
    // 4 layers × 8 heads × 256 values × 2 bytes per position; 20 layers keep pages for the window with its slack, the
    // chunk and a rollback.
    assert_eq!(all.kv[0].bytes, 131_072 * 4 * 8 * 256 * 2);
    assert_eq!(all.kv[1].pages, 18 + 10);
    assert_eq!(all.total_bytes, all.kv_bytes + (1 << 20));
    // By default the context is what fits beside the weights.
    let some = needs.plan(None, free(1700)).expect("a shorter context");
    assert!(some.context < 131_072 && some.context.is_multiple_of(64));
    assert!(some.total_bytes + needs.weights_bytes <= 1700 << 20);
    let wider = Needs { trained_context: some.context + 64, ..needs };
    assert!(
        wider.plan(Some(some.context + 64), None).expect("unchecked").total_bytes + needs.weights_bytes > 1700 << 20
    );
    // What is asked for is refused with advice that holds.
    let error = needs.plan(Some(131_072), free(1000)).expect_err("too large").to_string();
    assert!(
        error.contains("kv cache needs 2.1 GiB for context=131072") && error.contains("available 1000.0 MiB"),
        "{error}"
    );
    let advice: usize = error
        .split("context=")
        .nth(2)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .expect("a context that would fit");
    needs.plan(Some(advice), free(1000)).expect("it fits");
    needs.plan(Some(advice + 64), free(1000)).expect_err("and no more");
    let error = needs.plan(Some(64), free(1)).expect_err("nothing fits").to_string();
    assert!(error.contains("no context fits"), "{error}");
}

#[test]
fn a_plan_warns_when_the_file_does_not_fit_beside_it() {
    let layer = LayerKv { kv_heads: 8, key_dim: 64, value_dim: 64, format: KvFormat::F16 };
    let groups = [GroupLayout::new(None, [layer; 8])];
    let needs = Needs {
        weights_bytes: 1 << 30,
        weights_mapped: true,
        kv_format: KvFormat::F16,
        groups: &groups,
        state_bytes: 0,
        scratch_bytes: 1 << 20,
        chunk: 512,
        trained_context: 16_384,
    };
    let warning = |needs: &Needs<'_>, context, free: Option<FreeMemory>| {
        needs.plan(context, free).expect("possible").warning.unwrap_or_default()
    };
    let mib = |mib: u64| Some(FreeMemory::new(mib << 20, "free memory"));
    // The cache takes 16 KiB per position.
    assert_eq!(warning(&needs, Some(16_384), None), "");
    assert_eq!(warning(&needs, Some(16_384), mib(1281)), "");
    let text = warning(&needs, Some(16_384), mib(1200));
    assert!(
        text.starts_with("with a full context the weights (1.0 GiB) and 257.0 MiB beside them exceed the 1.2 GiB"),
        "{text}"
    );
    assert!(text.contains("a shorter context"), "{text}");
    // A context that is chosen to fit leads to no warning, unless the weights alone are too many.
    assert_eq!(warning(&needs, None, mib(1200)), "");
    let text = warning(&needs, None, mib(800));
    assert!(text.starts_with("the weights (1.0 GiB)") && text.contains("read again for every token"), "{text}");
    // The address space has them mapped already; what counts is memory.
    let space =
        FreeMemory { with_cache: Some(2 << 30), ..FreeMemory::new(300 << 20, "address space limit (ulimit -v)") };
    assert_eq!(warning(&needs, Some(16_384), Some(space)), "");
    let space = FreeMemory { with_cache: None, ..space };
    assert_eq!(warning(&needs, Some(16_384), Some(space)), "");
    assert_eq!(warning(&Needs { weights_mapped: false, ..needs }, Some(64), mib(1200)), "");
}

#[test]
fn a_quantized_cache_is_planned() {
    let layer = |format, dim| LayerKv { kv_heads: 3, key_dim: dim, value_dim: dim, format };
    let bytes = |format, dim| GroupLayout::new(None, [layer(format, dim); 2]).page_bytes();
    // 34 bytes for 32 values instead of 64, in whole blocks.
    for dim in [32, 64, 256] {
        assert_eq!(bytes(KvFormat::F16, dim) * 34 / 64, bytes(KvFormat::Q8_0, dim));
        assert_eq!(bytes(KvFormat::F16, dim) * 2, bytes(KvFormat::F32, dim));
    }
    // 80 dimensions are two blocks and a half with three scales; 24 are 6 words of a key and, in a value, two vectors of 16.
    assert_eq!(bytes(KvFormat::Q8_0, 80), 2 * 3 * 64 * 2 * (80 + 3 * 2));
    assert_eq!(bytes(KvFormat::Q8_0, 24), 2 * 3 * 64 * ((24 + 2) + (32 + 2)));

    for tiny in [tiny::llama(), tiny::gemma()] {
        let plan = |kv| tiny.load(&LoadOptions { kv, ..options() }).expect("loads").plan().clone();
        let [whole, half, byte] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0].map(plan);
        assert_eq!((half.kv_format, byte.kv_format), (KvFormat::F16, KvFormat::Q8_0));
        assert_eq!((whole.kv_format, whole.kv_bytes), (KvFormat::F32, 2 * half.kv_bytes));
        assert_eq!(whole.total_bytes - whole.kv_bytes, half.total_bytes - half.kv_bytes);
        assert!(byte.kv_bytes < half.kv_bytes * 7 / 10, "{} of {}", byte.kv_bytes, half.kv_bytes);
        assert_eq!(half.total_bytes - half.kv_bytes, byte.total_bytes - byte.kv_bytes);
    }
}

#[test]
fn a_huge_trained_context_is_cut_to_the_memory() {
    let mut tiny = tiny::llama();
    tiny.keys.push(("llama.context_length".into(), (1u32 << 30).into()));
    let model = tiny.load(&options()).expect("loads");
    assert!(model.context() >= 512 && model.context() < 1 << 30, "{}", model.context());
    assert_eq!(model.kv_used_bytes(), 0);
}

#[test]
fn parts_that_cannot_stand_side_by_side_are_refused() {
    let described = |base: &str| {
        let text = format!(r#"{{"base": "{base}", "norms": "parallel"}}"#);
        fastq_core::model::arch::description::described(&text).expect("a known architecture and placement")
    };
    for tiny in [tiny::granitemoe(), tiny::lfm2()] {
        let options = LoadOptions { architecture: Some(described(tiny.architecture)), ..LoadOptions::default() };
        let error = tiny.load(&options).map(|_| ()).expect_err(tiny.architecture).to_string();
        assert!(error.contains("side by side"), "{error}");
    }
}
