//! f16 and bf16 bits to f32 and back, scalar; the crate has no dependencies, so these are here.
