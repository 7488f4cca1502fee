//! The `fastq` command.
