//! Only the experts that a token meets are read from the map: the pages of all others are made unreadable.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "the other models are for other tests")]
#[path = "model/tiny.rs"]
mod tiny;

use std::ops::Range;

use fastq_core::gguf::{Gguf, TensorInfo};
use fastq_core::{BatchItem, LoadOptions, Logits, Model, Never};
use fastq_kernels::Format;
use tiny::{Experts, Tiny, tokens};

const COUNT: usize = 5;
/// Experts 3 and 1, whatever else the router says.
const ROUTER: &[f32] = &[0.0, 1000.0, 0.0, 2000.0, 0.0];
const USED: [usize; 2] = [3, 1];

/// A gpt-oss whose tokens all meet the same two experts, of 256 KiB per matrix.
fn model() -> Tiny {
    Tiny {
        layers: 2,
        width: 256,
        feed_forward: 256,
        experts: Some(Experts { count: COUNT, used: USED.len(), shared: 0 }),
        formats: &[Format::F32],
        router_bias: ROUTER,
        ..tiny::gpt_oss()
    }
}

/// The bits of the logits of a prompt, and of one token after it.
fn answer(model: &Model) -> Vec<u32> {
    let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
    let mut bits = Vec::new();
    for text in [tokens(3, 40), tokens(4, 1)] {
        let item = BatchItem { sequence: &mut sequence, tokens: &text, logits: Logits::All, out: &mut out };
        model.forward(&mut [item], &Never).expect("logits");
        bits.extend(out.iter().map(|x| x.to_bits()));
    }
    bits
}

/// The whole pages inside the matrix of an expert.
fn pages(file: &Gguf, tensor: &TensorInfo, expert: usize, page: usize) -> Range<usize> {
    let data = file.tensor_data(tensor);
    let (start, len) = (data.as_ptr() as usize + expert * (data.len() / COUNT), data.len() / COUNT);
    start.next_multiple_of(page)..(start + len) / page * page
}

/// Makes whole pages of the map unreadable.
fn forbid(pages: Range<usize>) {
    // SAFETY: nobody writes to the map. A read of these pages ends the process, which is the test.
    assert_eq!(unsafe { libc::mprotect(pages.start as *mut _, pages.len(), libc::PROT_NONE) }, 0);
}

#[test]
fn experts_that_no_token_meets_are_not_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("experts.gguf");
    model().write(&path);
    let load =
        || Model::load(&path, &LoadOptions { threads: Some(2), ..LoadOptions::default() }, &Never).expect("loads");
    let expected = answer(&load());

    let model = load();
    let file = model.gguf();
    assert!(file.is_mapped(), "the test is about the map");
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size");
    let matrices: Vec<&TensorInfo> =
        file.tensors().iter().filter(|tensor| tensor.name.ends_with("_exps.weight")).collect();
    assert_eq!(matrices.len(), 2 * 3);
    let unused = || (0..COUNT).filter(|expert| !USED.contains(expert));
    let mut forbidden = 0;
    for range in matrices.iter().flat_map(|tensor| unused().map(|expert| pages(file, tensor, expert, page))) {
        forbidden += range.len();
        forbid(range);
    }
    let all: u64 = matrices.iter().map(|tensor| tensor.bytes).sum();
    assert!(forbidden as u64 > all / 2, "{forbidden} of {all} bytes cannot be read");
    assert!(answer(&model) == expected, "the logits have changed");

    // The test can fail: without the pages of an expert that is met, a child ends by a signal.
    let met = pages(file, matrices[0], USED[0], page);
    // SAFETY: the pool starts threads of its own in the child, which computes and ends without anything of the parent's.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork: {}", std::io::Error::last_os_error()),
        0 => {
            forbid(met);
            answer(&model);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child that was just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFSIGNALED(status), "an expert that is met was not read: {status:#x}");
        }
    }
}
