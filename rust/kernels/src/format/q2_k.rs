//! Q2_K: 256 weights in 16 sub-blocks of 16, `d * scale * q - dmin * min`, 2.625 bits per weight.
//!
//! ```text
//! byte  0                16                              80       82          84
//!       | scales: 16     | qs: 64 bytes                  | d f16  | dmin f16  |
//! byte j:             bits 7-4 = min of sub-block j,  bits 3-0 = scale of sub-block j                     (j < 16)
//! byte 16 + 32 h + l: bits 2 s + 1, 2 s = weight 128 h + 32 s + l                          (h < 2, s < 4, l < 32)
//! weight i = d * scale[i / 16] * bits - dmin * min[i / 16]
//! ```

use core::mem::offset_of;

use super::layout::{Half, SUPER, block, crumbs, pack_crumbs};
use super::round::nearest;
use super::search::minimum::{MinimumFit, MinimumSearch, round_above_minimum};
use super::search::positive::fit_positive;
use super::search::{largest, squares, sum, weigh};
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// Q2_K: 256 weights in 84 bytes, 4-bit scales and minima of 16 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q2_K;

block! { Q2_K {
    /// Scale (lower nibble) and minimum (upper nibble) of each sub-block of 16.
    scales: [u8; 16],
    /// Weights as [`crumbs`].
    qs: [u8; 64],
    /// Scale of the scales.
    d: Half,
    /// Scale of the minima, which are subtracted.
    dmin: Half,
} }

impl Block {
    /// The scales and the minima of the sub-blocks, 0..16.
    #[inline(always)]
    pub(crate) fn scales_and_minima(&self) -> ([u8; 16], [u8; 16]) {
        (self.scales.map(|s| s & 15), self.scales.map(|s| s >> 4))
    }

    /// The integers, 0..4.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; SUPER] {
        crumbs(&self.qs)
    }
}

impl BlockFormat for Q2_K {
    const NAME: &'static str = "Q2_K";
    const ID: u32 = 10;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 84;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d)), Scale::Half(offset_of!(Block, dmin))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let (d, dmin) = (block.d.get(), block.dmin.get());
        let (scales, minima) = block.scales_and_minima();
        let quants = block.quants();
        for (j, (out, quants)) in out.chunks_exact_mut(16).zip(quants.chunks_exact(16)).enumerate() {
            let (scale, min) = (d * f32::from(scales[j]), dmin * f32::from(minima[j]));
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q) - min;
            }
        }
    }
}

impl Q2_K {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            let importance = importance.map(|importance| &importance[SUPER * i..][..SUPER]);
            Block::of_mut(out).quantize(cpu, values, importance);
        }
    }
}

impl Block {
    fn quantize(&mut self, cpu: Cpu, values: &[f32], importance: Option<&[f32]>) {
        const LIMIT: i32 = 3;
        const PLAIN: MinimumSearch = MinimumSearch { limit: LIMIT, first: -0.5, step: 0.1, steps: 15, absolute: true };
        let x = values.as_chunks::<16>().0;
        let mut fits = [MinimumFit::default(); 16];
        let search = if let Some(importance) = importance {
            let importance = importance.as_chunks::<16>().0;
            let spread = squares(values) / SUPER as f32;
            let weights = core::array::from_fn(|j| weigh(&x[j], &importance[j], spread));
            let search = MinimumSearch::weighted(LIMIT);
            search.fit_each(cpu, x, &weights, &mut fits);
            let sums = weights.map(|weights| sum(&weights));
            let (d, scales) = fit_positive(&fits.map(|fit| fit.scale), &sums, 15);
            let (dmin, minima) = fit_positive(&fits.map(|fit| fit.min), &sums, 15);
            self.scales = core::array::from_fn(|j| scales[j] | minima[j] << 4);
            (self.d, self.dmin) = (Half::of(d), Half::of(dmin));
            search
        } else {
            let weights = core::array::from_fn(|j| x[j].map(f32::abs));
            PLAIN.fit_each(cpu, x, &weights, &mut fits);
            // A trial scale can be negative by rounding; its low bits then reach into the minimum, as in the reference.
            let quantize = |top: f32, values: [f32; 16]| {
                let inverse = if top > 0.0 { 15.0 / top } else { 0.0 };
                values.map(|value| nearest(inverse * value))
            };
            let (scales, minima) = (fits.map(|fit| fit.scale), fits.map(|fit| fit.min));
            let (top_scale, top_min) = (largest(&scales), largest(&minima));
            let (scales, minima) = (quantize(top_scale, scales), quantize(top_min, minima));
            self.scales = core::array::from_fn(|j| (scales[j] | minima[j] << 4) as u8);
            (self.d, self.dmin) = (Half::of(top_scale / 15.0), Half::of(top_min / 15.0));
            PLAIN
        };
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let (scales, minima) = self.scales_and_minima();
        let mut levels = [0; SUPER];
        for (j, levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scale, min) = (d * f32::from(scales[j]), dmin * f32::from(minima[j]));
            *levels = round_above_minimum(&x[j], scale, min, &search, &fits[j]);
        }
        self.qs = pack_crumbs(&levels);
    }
}

impl ScalarGrid for Q2_K {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 16,
        levels: Levels::Range(0, 3),
        scales: Some((0, 15)),
        minima: Minima::Steps(15),
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let (scales, minima): ([u8; 16], [u8; 16]) = (parts.stored_scales(0), parts.stored_minima());
        block.d.set(parts.d);
        block.dmin.set(parts.dmin);
        block.scales = core::array::from_fn(|j| scales[j] | minima[j] << 4);
        block.qs = pack_crumbs(&parts.codes(0));
    }
}

impl Weights for Q2_K {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for Q2_K {
    const OFFSET: i32 = 0;
    const PEAK: u32 = 3;
    const MINIMA: bool = true;
    const SCALE_PEAK: u32 = 15;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        let (scales, minima) = block.scales_and_minima();
        PlainSuperBlock {
            quants: block.quants().map(|q| q as i8),
            scales: scales.map(i32::from),
            minima: minima.map(i32::from),
            d: block.d.get(),
            dmin: block.dmin.get(),
        }
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the scales are 16 bytes of each block.
        let packed = unsafe { isa.words(rows.at(offset_of!(Block, scales))) };
        // `d` and `dmin`.
        let halves = head.word(isa, 0);
        SuperScales {
            scales: isa.low_nibbles(packed),
            minima: isa.high_nibbles(packed),
            d: isa.lower_halves(halves),
            dmin: isa.upper_halves(halves),
        }
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        for h in 0..2 {
            for l in 0..2 {
                // SAFETY: the crumbs are 64 bytes of each block.
                let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 32 * h + 16 * l)) };
                sink.take_fields::<0, 0x03>(isa, 8 * h + l, packed);
                sink.take_fields::<2, 0x03>(isa, 8 * h + 2 + l, packed);
                sink.take_fields::<4, 0x03>(isa, 8 * h + 4 + l, packed);
                sink.take_fields::<6, 0x03>(isa, 8 * h + 6 + l, packed);
            }
        }
    }
}
