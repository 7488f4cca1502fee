//! The extension module `fastq._fastq`.
