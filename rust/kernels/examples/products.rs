//! Multiplies a random matrix some times and prints nothing: what `benches/instructions.py` counts the instructions of.
//!
//! `products FORMAT TOKENS ROWS K TIMES`, on the level that `FASTQ_LEVEL` names.

use std::hint::black_box;

use fastq_kernels::activation::quantize_activations;
use fastq_kernels::matmul::MatmulScratch;
use fastq_kernels::testing::{Bits, Rng, blocks, values};
use fastq_kernels::{Cpu, Format, Matrix, OutTile, matmul};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [format, tokens, rows, k, times] = &arguments[..] else { panic!("FORMAT TOKENS ROWS K TIMES") };
    let format = Format::ALL.iter().copied().find(|f| f.name() == format).expect("a format");
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (tokens, rows, k, times) = (number(tokens), number(rows), number(k), number(times));

    let cpu = Cpu::detect().expect("the level");
    let mut rng = Rng::new(1);
    let data = blocks(&mut rng, format, rows * k / format.info().block, Bits::Sensible);
    let x = values(&mut rng, tokens * k, 1.0);
    let mut records = vec![0; tokens * format.activation().row_bytes(k)];
    quantize_activations(cpu, format.activation(), &x, k, &mut records);
    let mut out = vec![0.0; tokens * rows];
    let mut scratch = MatmulScratch::default();
    for _ in 0..times {
        let weights = Matrix { format, rows, k, data: &data };
        // SAFETY: no other thread.
        unsafe { matmul(cpu, weights, 0..rows, &records, tokens, OutTile::new(&mut out, rows), &mut scratch) };
        black_box(&mut out);
    }
}
