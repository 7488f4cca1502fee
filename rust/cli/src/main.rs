//! The stand-alone `fastq` program.
fn main() {}
