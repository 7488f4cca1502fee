//! One answer: the bits of the logits are the same for every level, number of threads, batch, chunk and spread over calls.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

#[path = "model/tiny.rs"]
mod tiny;

use std::collections::BTreeSet;

use fastq_core::{BatchItem, KvFormat, LoadOptions, Logits, Model, Never};
use fastq_kernels::{Format, Level};
use tiny::{Tiny, tokens};

fn options(level: Option<Level>, threads: usize, prefill_chunk: usize) -> LoadOptions {
    LoadOptions { level, threads: Some(threads), prefill_chunk, ..LoadOptions::default() }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Logits of all positions, one text per call.
fn alone(model: &Model, texts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    texts
        .iter()
        .map(|text| {
            let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
            let item = BatchItem { sequence: &mut sequence, tokens: text, logits: Logits::All, out: &mut out };
            model.forward(&mut [item], &Never).expect("logits");
            assert_eq!(out.len(), text.len() * model.vocabulary());
            bits(&out)
        })
        .collect()
}

/// The same or the last position only, `batch` texts per call.
fn together(model: &Model, texts: &[Vec<u32>], batch: usize, logits: Logits) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for texts in texts.chunks(batch) {
        let mut sequences: Vec<_> = texts.iter().map(|_| model.new_sequence()).collect();
        let mut outs = vec![Vec::new(); texts.len()];
        let mut items: Vec<_> = texts
            .iter()
            .zip(&mut sequences)
            .zip(&mut outs)
            .map(|((tokens, sequence), out)| BatchItem { sequence, tokens, logits, out })
            .collect();
        model.forward(&mut items, &Never).expect("logits");
        all.extend(outs.iter().map(|out| bits(out)));
    }
    all
}

/// One call per part of each text, the last logits only: rows `parts` of [`alone`].
fn in_steps(model: &Model, texts: &[Vec<u32>]) -> Vec<Vec<Vec<u32>>> {
    let mut sequences: Vec<_> = texts.iter().map(|_| model.new_sequence()).collect();
    let mut steps = vec![Vec::new(); texts.len()];
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    // A prefill of different lengths, then single tokens.
    for step in 0..longest {
        let mut outs = vec![Vec::new(); texts.len()];
        let mut items = Vec::new();
        let mut indices = Vec::new();
        for (index, ((text, sequence), out)) in texts.iter().zip(&mut sequences).zip(&mut outs).enumerate() {
            let prefix = text.len() / 2 + 1;
            let range = if step == 0 { 0..prefix } else { prefix + step - 1..prefix + step };
            if range.end <= text.len() {
                indices.push(index);
                items.push(BatchItem { sequence, tokens: &text[range], logits: Logits::Last, out });
            }
        }
        model.forward(&mut items, &Never).expect("logits");
        drop(items);
        for index in indices {
            assert_eq!(outs[index].len(), model.vocabulary());
            steps[index].push(bits(&outs[index]));
        }
    }
    steps
}

fn one_answer(tiny: &Tiny, kv: KvFormat) {
    let options = |level, threads, chunk| LoadOptions { kv, ..options(level, threads, chunk) };
    let texts: Vec<Vec<u32>> = [70, 1, 33, 64, 5, 130, 17].iter().map(|&len| tokens(len as u64, len)).collect();
    let expected = alone(&tiny.load(&options(Some(Level::Scalar), 1, 512)).expect("loads"), &texts);
    let different: std::collections::HashSet<_> = expected.iter().map(|row| &row[row.len() - 300..]).collect();
    assert_eq!(different.len(), texts.len(), "the logits depend on the text");
    for threads in [1, 2, 3] {
        for chunk in [1, 17, 512] {
            let model = tiny.load(&options(None, threads, chunk)).expect("loads");
            for batch in [1, 2, 7] {
                let found = together(&model, &texts, batch, Logits::All);
                assert!(found == expected, "{threads} threads, chunk {chunk}, batch {batch} at {:?}", model.level());
            }
        }
    }
    for level in Level::available() {
        let model = tiny.load(&options(Some(level), 2, 17)).expect("loads");
        assert!(together(&model, &texts, 7, Logits::All) == expected, "{}", level.name());
        let vocabulary = model.vocabulary();
        for (index, steps) in in_steps(&model, &texts).into_iter().enumerate() {
            let prefix = texts[index].len() / 2 + 1;
            for (step, found) in steps.into_iter().enumerate() {
                let row = prefix - 1 + step;
                assert!(
                    found == expected[index][row * vocabulary..][..vocabulary],
                    "{}: text {index} row {row}",
                    level.name()
                );
            }
        }
    }
}

#[test]
fn llama_has_one_answer() {
    KvFormat::ALL.iter().for_each(|&kv| one_answer(&tiny::llama(), kv));
}

#[test]
fn gemma_has_one_answer() {
    KvFormat::ALL.iter().for_each(|&kv| one_answer(&tiny::gemma(), kv));
}

#[test]
fn experts_have_one_answer() {
    one_answer(&tiny::gpt_oss(), KvFormat::F16);
    one_answer(&tiny::granitemoe(), KvFormat::F16);
}

#[test]
fn lfm2_has_one_answer() {
    KvFormat::ALL.iter().for_each(|&kv| one_answer(&tiny::lfm2(), kv));
}

#[test]
fn qwen35_has_one_answer() {
    KvFormat::ALL.iter().for_each(|&kv| one_answer(&tiny::qwen35(), kv));
}

/// Texts of more than one part of attention: at once, with a last token or a few that many threads share, and in a batch.
#[test]
fn long_texts_have_one_answer() {
    let llama = Tiny { context: 2048, layers: 2, formats: &[Format::Q8_0], ..tiny::llama() };
    // Windows of 600 begin and end within parts.
    let gemma = Tiny { context: 2048, window: 600, layers: 6, formats: &[Format::Q4_0], ..tiny::gemma() };
    // Every layer has sinks, which are combined last.
    let gpt_oss = Tiny { context: 2048, window: 600, layers: 2, ..tiny::gpt_oss() };
    let text = tokens(77, 1300);
    for (tiny, &kv) in [llama, gemma, gpt_oss].iter().flat_map(|tiny| KvFormat::ALL.iter().map(move |kv| (tiny, kv))) {
        let load = |level, threads, chunk| {
            tiny.load(&LoadOptions { kv, context: Some(2048), ..options(level, threads, chunk) }).expect("loads")
        };
        let model = load(None, 1, 512);
        let whole = alone(&model, std::slice::from_ref(&text)).remove(0);
        let row = |position: usize| &whole[position * model.vocabulary()..][..model.vocabulary()];
        for (level, threads) in Level::available().into_iter().zip([2, 3, 4, 5].into_iter().cycle()) {
            let model = load(Some(level), threads, 512);
            let what = format!("{}, {} on {}, {threads} threads", tiny.architecture, kv.name(), level.name());
            let mut base = model.new_sequence();
            let start = if level == Level::Scalar { 520 } else { 1030 };
            let append = |sequences: &mut [&mut fastq_core::Sequence], tokens: &[u32]| {
                let mut outs = vec![Vec::new(); sequences.len()];
                let items = sequences.iter_mut().zip(&mut outs);
                let mut items: Vec<_> =
                    items.map(|(sequence, out)| BatchItem { sequence, tokens, logits: Logits::Last, out }).collect();
                model.forward(&mut items, &Never).expect("logits");
                outs.iter().map(|out| bits(out)).collect::<Vec<_>>()
            };
            append(&mut [&mut base], &text[..start]);
            let mut fork = base.fork();
            let mut position = start;
            for count in [1, 1, 3, 1, 7] {
                let tokens = &text[position..position + count];
                position += count;
                let found = append(&mut [&mut base, &mut fork], tokens);
                assert!(found.iter().all(|found| found == row(position - 1)), "{what}: after {position}");
            }
            drop(fork);
            let tokens = &text[position..position + 4];
            assert!(append(&mut [&mut base], tokens)[0] == row(position + 3), "{what}: the last");
        }
    }
}

/// The real models: logits of batches on every level. The slow level takes part once; all its settings are in
/// `tests/test_one_answer.py`.
#[test]
fn real_models_have_one_answer() {
    let Some(folder) = std::env::var_os("FASTQ_MODELS").map(std::path::PathBuf::from) else {
        eprintln!("SKIPPED: FASTQ_MODELS must name a folder with smollm2.gguf and gemma3.gguf");
        return;
    };
    let texts: Vec<Vec<u32>> = (0..7).map(|seed| tokens(seed, 3)).collect();
    for name in ["smollm2", "gemma3"] {
        let mut expected = None;
        let mut check = |level, threads, chunk, batches: &[usize]| {
            let options = LoadOptions { context: Some(64), ..options(Some(level), threads, chunk) };
            let model = Model::load(&folder.join(format!("{name}.gguf")), &options, &Never).expect("loads");
            for &batch in batches {
                let texts = &texts[..batch.max(2)];
                let found = together(&model, texts, batch, Logits::Last);
                let expected = expected.get_or_insert_with(|| found.clone());
                assert!(
                    found == expected[..texts.len()],
                    "{name}, {level:?}, {threads} threads, chunk {chunk}, batch {batch}"
                );
            }
        };
        for level in Level::available().into_iter().filter(|level| *level != Level::Scalar) {
            for threads in [1, 2, 3] {
                for chunk in [1, 17, 512] {
                    check(level, threads, chunk, &[7, 2, 1]);
                }
            }
        }
        check(Level::Scalar, 2, 17, &[7]);
    }
}

/// Files may lay tensors at any byte: nothing relies on where the data of a tensor begins, nor on the size of a page.
#[test]
fn tensors_at_odd_places_give_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts = [tokens(11, 40), tokens(12, 1)];
    for tiny in [tiny::llama(), tiny::gemma()] {
        let aligned = alone(&tiny.load(&options(None, 1, 64)).expect("loads"), &texts);
        let mut places = BTreeSet::new();
        for (shift, alignment) in [(0, 1u32), (1, 1), (2, 1), (3, 1), (0, 2), (0, 8), (0, 65_536)] {
            let mut tiny = tiny.clone();
            tiny.keys.push(("general.alignment".into(), alignment.into()));
            tiny.keys.push(("general.description".into(), "x".repeat(shift).as_str().into()));
            let path = folder.path().join(format!("{}-{shift}-{alignment}.gguf", tiny.architecture));
            tiny.write(&path);
            for &level in &Level::available() {
                let model = Model::load(&path, &options(Some(level), 1, 64), &Never).expect("loads");
                let file = model.gguf();
                places.insert(file.tensor_data(&file.tensors()[0]).as_ptr().addr() % 4);
                assert!(alone(&model, &texts) == aligned, "{} {shift} {alignment} {level:?}", tiny.architecture);
            }
        }
        assert_eq!(places.len(), 4, "data began at every place in a word");
    }
}
