//! Memory that a file can make the reader take: at most 64 MiB + 2 x its size, whatever is in it.

#[path = "gguf/build.rs"]
mod build;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use build::{File, array, string};
use fastq_core::gguf::{Gguf, MAX_PAIRS, MAX_TENSORS};

/// Counts the bytes that are allocated, now and at most. This program has one test, so nothing else allocates.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are those the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that parsing takes beyond the file itself, at most.
fn taken(bytes: Vec<u8>) -> (usize, bool) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let opened = Gguf::parse(Path::new("m.gguf"), bytes.into()).is_ok();
    (MOST.load(Ordering::Relaxed) - before, opened)
}

#[test]
fn memory_is_bounded_by_the_size_of_the_file() {
    let many_pairs = (0..MAX_PAIRS).fold(File::default(), |file, index| file.pair(format!("{index:x}"), 0, [0]));
    let many_strings =
        (0..MAX_PAIRS).fold(File::default(), |file, index| file.pair(format!("{index:x}"), 8, string("a")));
    let many_arrays =
        (0..MAX_PAIRS).fold(File::default(), |file, index| file.pair(format!("{index:x}"), 9, array(0, 0, b"")));
    let mut many_tensors = File::default().pair("general.alignment", 4, 1u32.to_le_bytes());
    many_tensors.alignment = 1;
    many_tensors = (0..MAX_TENSORS)
        .fold(many_tensors, |file, index| file.tensor(format!("{index:x}"), &[1, 1, 1, 1], 24, vec![0]));
    let strings = string("").repeat(1 << 20);
    let vocabulary = File::default().pair("tokenizer.ggml.tokens", 9, array(8, 1 << 20, &strings));
    let one_string = File::default().pair("k", 8, string(vec![b'a'; 64 << 20]));
    let false_counts = File { pair_count: Some(MAX_PAIRS), tensor_count: Some(MAX_TENSORS), ..vocabulary.clone() };
    let cases = [
        ("many pairs", many_pairs, true),
        ("many strings", many_strings, true),
        ("many empty arrays", many_arrays, true),
        ("many tensors", many_tensors, true),
        ("a vocabulary", vocabulary, true),
        ("a string of 64 MiB", one_string, true),
        ("counts that are not true", false_counts, false),
    ];
    for (name, file, valid) in cases {
        let bytes = file.bytes();
        drop(file);
        let size = bytes.len();
        let (most, opened) = taken(bytes);
        assert_eq!(opened, valid, "{name}");
        assert!(most <= (64 << 20) + size, "{name}: {most} bytes beyond the {size} of the file");
        if name == "a vocabulary" {
            assert!(most < 10_000, "{name} was copied: {most} bytes");
        }
    }
}
