//! Rows of f16.

use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

struct ToF16<'a> {
    x: &'a [f32],
    out: &'a mut [u16],
}

impl Kernel for ToF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let ((x, x_rest), (out, out_rest)) = (self.x.as_chunks::<LANES>(), self.out.as_chunks_mut::<LANES>());
        for (x, out) in x.iter().zip(out) {
            isa.store_f16(isa.load(x), out);
        }
        if !x_rest.is_empty() {
            isa.store_f16_first(isa.load_first(x_rest, 0.0), out_rest);
        }
    }
}

struct FromF16<'a> {
    x: &'a [u16],
    out: &'a mut [f32],
}

impl Kernel for FromF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let ((x, x_rest), (out, out_rest)) = (self.x.as_chunks::<LANES>(), self.out.as_chunks_mut::<LANES>());
        for (x, out) in x.iter().zip(out) {
            isa.store(isa.load_f16(x), out);
        }
        if !x_rest.is_empty() {
            isa.store_first(isa.load_f16_first(x_rest), out_rest);
        }
    }
}

/// f32 to f16 bits, round to nearest even. NaN becomes quiet and keeps its sign and the top of its payload.
pub fn to_f16(cpu: Cpu, x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len(), "both rows must have the same length");
    dispatch_floats(cpu, ToF16 { x, out });
}

/// f16 bits to f32, exact. A signalling NaN becomes quiet; sign and payload stay.
pub fn from_f16(cpu: Cpu, x: &[u16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "both rows must have the same length");
    dispatch_floats(cpu, FromF16 { x, out });
}
