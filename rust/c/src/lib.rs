//! The C interface of the engine: what `include/fastq.h` declares, which is made from this crate. Conversions of types and errors
//! only, as `rust/python` is for Python. The comments of public items are written for readers of the header.

#![allow(unreachable_pub, reason = "public is what the header has")]
#![allow(non_camel_case_types, reason = "names are those of the header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "what a caller must grant is told once, at the top of the header, and would be repeated in it for every function"
)]

// In the order of the header; the empty lines keep rustfmt from sorting them.
mod version;

mod status;

mod memory;

mod cancel;

mod model;

mod session;

mod generate;

mod tokens;

mod arguments;

/// What the header promises of threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<model::fastq_model>();
    shared::<session::fastq_session>();
    shared::<cancel::fastq_cancel>();
};
