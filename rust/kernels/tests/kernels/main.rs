//! The tests of the kernels: one file beside this one for each file of the crate.
//!
//! They stand outside the crate so that it is compiled once: with tests inside, cargo compiles all formats on all levels a second
//! time, which takes minutes. What they look at beyond the interface is in `fastq_kernels::testing::internals`.

mod affine;
mod attention;
mod checkpoint;
mod distortion;
mod elementwise;
mod format;
mod gram;
mod half;
mod isa;
mod math;
mod matmul;
mod quantize;
mod recurrent;
mod testing;

use fastq_kernels::{Cpu, Level};

/// Every level above the scalar one that this processor has; says loudly which it has not.
#[allow(clippy::print_stderr, reason = "a level that is not tested must be seen")]
fn other_levels() -> Vec<Cpu> {
    let mut cpus = Vec::new();
    for &level in Level::ALL.iter().filter(|&&level| level != Level::Scalar) {
        match Cpu::new(level) {
            Ok(cpu) => cpus.push(cpu),
            Err(error) => eprintln!("NOT TESTED: {error}"),
        }
    }
    eprintln!("tested levels: scalar, {:?}", cpus.iter().map(|cpu| cpu.level().name()).collect::<Vec<_>>());
    cpus
}

/// Every level that this processor has, the plain one first.
fn levels() -> Vec<Cpu> {
    [vec![scalar()], other_levels()].concat()
}

/// The plain level, which the others are compared with.
fn scalar() -> Cpu {
    Cpu::new(Level::Scalar).expect("every machine has it")
}

/// The bits, with every NaN as one: levels may differ in the sign and payload of a NaN.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}
