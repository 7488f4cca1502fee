//! Q4_K: 256 weights in 8 sub-blocks of 32, `d * scale * q - dmin * min`, 4.5 bits per weight.
//!
//! ```text
//! byte  0        2           4               16                                      144
//!       | d f16  | dmin f16  | scales: 12    | qs: 128 bytes                         |
//! bytes 4..16:        six-bit scales and minima, drawn at `scales_and_minima` in layout.rs
//! byte 16 + 32 c + l: bits 7-4 = weight 64 c + 32 + l,  bits 3-0 = weight 64 c + l         (c < 4, l < 32)
//! weight i = d * scale[i / 32] * bits - dmin * min[i / 32]
//! ```

use core::array;
use core::mem::offset_of;

use super::layout::{Half, SUPER, block, pack_scales_and_minima, pack_super_nibbles, scales_and_minima, super_nibbles, unpack_scales_and_minima};
use super::search::minimum::MinimumSearch;
use super::search::quantize_packed;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// Q4_K: 256 weights in 144 bytes, 6-bit scales and minima of 8 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q4_K;

block! { Q4_K {
    /// Scale of the scales.
    d: Half,
    /// Scale of the minima, which are subtracted.
    dmin: Half,
    /// Scales and minima of the sub-blocks of 32, as [`scales_and_minima`].
    scales: [u8; 12],
    /// Weights as [`super_nibbles`].
    qs: [u8; 128],
} }

impl Block {
    /// The scales and the minima of the sub-blocks, 0..64.
    #[inline(always)]
    pub(crate) fn scales_and_minima(&self) -> ([u8; 8], [u8; 8]) {
        scales_and_minima(&self.scales)
    }

    /// The integers, 0..16.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; SUPER] {
        super_nibbles(&self.qs)
    }
}

impl BlockFormat for Q4_K {
    const NAME: &'static str = "Q4_K";
    const ID: u32 = 12;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 144;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d)), Scale::Half(offset_of!(Block, dmin))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let (d, dmin) = (block.d.get(), block.dmin.get());
        let (scales, minima) = block.scales_and_minima();
        let quants = block.quants();
        for (j, (out, quants)) in out.chunks_exact_mut(32).zip(quants.chunks_exact(32)).enumerate() {
            let (scale, min) = (d * f32::from(scales[j]), dmin * f32::from(minima[j]));
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q) - min;
            }
        }
    }
}

impl Q4_K {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        const PLAIN: MinimumSearch = MinimumSearch { limit: 15, first: -1.0, step: 0.1, steps: 20, absolute: false };
        let blocks = out.as_chunks_mut::<{ Self::BYTES }>().0;
        quantize_packed(cpu, PLAIN, values, importance, |i, scales, levels| {
            let block = Block::of_mut(&mut blocks[i]);
            (block.d, block.dmin, block.scales) = (scales.d, scales.dmin, scales.packed);
            block.qs = pack_super_nibbles(levels);
        });
    }
}

impl ScalarGrid for Q4_K {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 32,
        levels: Levels::Range(0, 15),
        scales: Some((0, 63)),
        minima: Minima::Steps(63),
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.dmin.set(parts.dmin);
        block.scales = pack_scales_and_minima(&parts.stored_scales(0), &parts.stored_minima());
        block.qs = pack_super_nibbles(&parts.codes(0));
    }
}

impl Weights for Q4_K {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for Q4_K {
    const OFFSET: i32 = 0;
    const PEAK: u32 = 15;
    const WIDE: bool = true;
    const MINIMA: bool = true;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        let (scales, minima) = block.scales_and_minima();
        PlainSuperBlock {
            quants: block.quants().map(|q| q as i8),
            scales: array::from_fn(|j| i32::from(scales[j / 2])),
            minima: array::from_fn(|j| i32::from(minima[j / 2])),
            d: block.d.get(),
            dmin: block.dmin.get(),
        }
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, _head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the first 16 bytes of each block: `d`, `dmin`, and the scales.
        let [halves, packed @ ..] = unsafe { isa.words(rows) };
        let (scales, minima) = unpack_scales_and_minima(isa, packed);
        SuperScales { scales, minima, d: isa.lower_halves(halves), dmin: isa.upper_halves(halves) }
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        if I::JOINS {
            // SAFETY: by the contract. One by one, so that each finds its scales in registers.
            unsafe {
                unpack_joined::<I, 0>(isa, rows, sink);
                unpack_joined::<I, 1>(isa, rows, sink);
                unpack_joined::<I, 2>(isa, rows, sink);
                unpack_joined::<I, 3>(isa, rows, sink);
            }
            return;
        }
        for c in 0..4 {
            for l in 0..2 {
                // SAFETY: the nibbles are 128 bytes of each block.
                let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 32 * c + 16 * l)) };
                sink.take(isa, 4 * c + l, isa.low_nibbles(packed));
                sink.take_fields::<4, 0x0f>(isa, 4 * c + 2 + l, packed);
            }
        }
    }
}

/// Gives `sink` sub-blocks `4 C..4 C + 4`, by 32 weights.
///
/// # Safety
/// As for [`SuperBlocks::unpack`].
#[inline(always)]
unsafe fn unpack_joined<I: Integers, const C: usize>(isa: I, rows: Rows, sink: &mut impl Sink<I>) {
    let qs = rows.at(offset_of!(Block, qs) + 32 * C);
    // SAFETY: the nibbles are 128 bytes of each block.
    let (a, b) = unsafe { (isa.chunk(qs), isa.chunk(qs.at(16))) };
    sink.take_two(isa, 4 * C, [isa.low_nibbles(a), isa.low_nibbles(b)]);
    sink.take_two(isa, 4 * C + 2, [isa.high_nibbles(a), isa.high_nibbles(b)]);
}
