//! What a step takes from the allocator: nothing, once it has been made.

#[path = "model/tiny.rs"]
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use fastq_core::sampler::SamplerOptions;
use fastq_core::{BatchItem, Generation, GenerationOptions, KvFormat, LoadOptions, Logits, Model, Never, Prompt};
use tiny::tokens;

/// Counts the allocations of all threads. This program has one test, so nothing else allocates.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.load(Ordering::Relaxed);
    work();
    COUNT.load(Ordering::Relaxed) - before
}

/// Allocations of the forward calls that append `parts` to two texts, after a first time.
fn of_forward(model: &Model, parts: &[usize]) -> usize {
    let text = tokens(1, 64);
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let mut count = 0;
    for _ in 0..2 {
        let mut sequences = [model.new_sequence(), model.new_sequence()];
        let mut at = 0;
        count = 0;
        for (step, &part) in parts.iter().enumerate() {
            let [first, second] = &mut sequences;
            let tokens = &text[at..at + part];
            let mut batch = [
                BatchItem { sequence: first, tokens, logits: Logits::Last, out: &mut one },
                BatchItem { sequence: second, tokens, logits: Logits::Last, out: &mut two },
            ];
            let taken = allocations(|| model.forward(&mut batch, &Never).expect("computes"));
            // The first part takes pages of the cache.
            count += if step == 0 { 0 } else { taken };
            at += part;
        }
    }
    count
}

/// Allocations of a token of a generation.
fn of_generation(model: &Model) -> usize {
    let sampler = SamplerOptions { repeat_penalty: 1.1, ..SamplerOptions::default() };
    let options = GenerationOptions { max_tokens: Some(40), ignore_eos: true, sampler, ..GenerationOptions::default() };
    let mut generation = Generation::new(model, vec![Prompt::Tokens(tokens(2, 8))], &options, &Never).expect("starts");
    for _ in 0..20 {
        generation.step(&Never).expect("steps");
    }
    allocations(|| drop(generation.step(&Never).expect("steps")))
}

#[test]
fn a_step_allocates_nothing() {
    for (tiny, kv) in [
        (tiny::llama(), KvFormat::F32),
        (tiny::llama(), KvFormat::F16),
        (tiny::llama(), KvFormat::Q8_0),
        (tiny::gemma(), KvFormat::F16),
        (tiny::gpt_oss(), KvFormat::F16),
        (tiny::granitemoe(), KvFormat::F16),
        (tiny::lfm2(), KvFormat::F16),
        (tiny::qwen35(), KvFormat::F16),
    ] {
        let architecture = tiny.architecture;
        // The memory of a second thread would be taken when it happens to get its first piece.
        let options = LoadOptions { threads: Some(1), kv, prefill_chunk: 32, ..LoadOptions::default() };
        let model = tiny.load(&options).expect("loads");
        assert_eq!(of_forward(&model, &[1, 1, 1, 20, 1, 20]), 0, "{architecture}");
        // Lists of what is under way, and the pieces of text that are handed out.
        let taken = of_generation(&model);
        assert!(taken <= 12, "{architecture}: {taken} allocations for a token");
    }
}
