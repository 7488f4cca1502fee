//! The searches for scales with which ggml's quantizers encode blocks and sub-blocks.
//!
//! Results are byte-exact to `ggml-quants.c` compiled without contraction of multiplications and additions: sums run in
//! index order in f32, and every expression keeps the association that C gives it.
//!
//! Every search exists twice: as plain code for one sub-block, the oracle, and for sixteen sub-blocks at once, one in each lane
//! ([`lanes`]). Because each lane does what the plain code does, in its order, the bytes are the same.

use super::layout::{Half, SUPER, pack_scales_and_minima, scales_and_minima};
use super::round::nearest;
use crate::{Cpu, LANES};

pub(super) mod grid;
pub(super) mod lanes;
pub(super) mod minimum;
pub(super) mod nonlinear;
pub(super) mod positive;
pub(super) mod signed;
pub(super) mod ternary;

use minimum::{MinimumFit, MinimumSearch, round_above_minimum};
use positive::fit_positive;
use signed::SignedFit;

/// Sub-blocks below this magnitude count as zero.
pub(super) const TINY: f32 = 1e-15;

/// The weights of the errors in up to [`LANES`] sub-blocks of `N`.
pub(super) type Weights<const N: usize> = [[f32; N]; LANES];

/// What the error of each of `x` counts: its importance times `sqrt(spread + x^2)`. `spread` is once or twice the mean square of
/// the row or super-block.
pub(super) fn weigh<const N: usize>(x: &[f32; N], importance: &[f32; N], spread: f32) -> [f32; N] {
    core::array::from_fn(|i| importance[i] * (spread + x[i] * x[i]).sqrt())
}

/// The sum of the squares, in index order.
pub(super) fn squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

/// The sum, in index order.
pub(super) fn sum(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x)
}

/// The largest value, at least 0.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, &value| if value > top { value } else { top })
}

/// Encodes a row of blocks of 32 as `d * (level - limit)` by importance; gives `store` the number of each block, `d` and the levels.
pub(super) fn quantize_signed(
    cpu: Cpu,
    limit: i32,
    values: &[f32],
    importance: &[f32],
    mut store: impl FnMut(usize, f32, &[u8; 32]),
) {
    quantize_weighted(values, importance, |first, x, weights| {
        let fits = SignedFit::of_each(cpu, x, weights, limit);
        for (j, (x, fit)) in x.iter().zip(fits).enumerate() {
            store(first + j, fit.scale, &fit.levels(x, limit));
        }
    });
}

/// Encodes a row of blocks of 32 as `scale * level - min` by importance, with levels in `0..=limit`; gives `store` the number of each
/// block, its scale and minimum, and the levels.
pub(super) fn quantize_with_minimum(
    cpu: Cpu,
    limit: i32,
    values: &[f32],
    importance: &[f32],
    mut store: impl FnMut(usize, &MinimumFit, &[u8; 32]),
) {
    let search = MinimumSearch::weighted(limit);
    quantize_weighted(values, importance, |first, x, weights| {
        let mut fits = [MinimumFit::default(); LANES];
        search.fit_each(cpu, x, weights, &mut fits);
        for (j, (x, fit)) in x.iter().zip(&fits).enumerate() {
            store(first + j, fit, &search.levels_of(x, fit));
        }
    });
}

/// Gives `fit` the blocks of 32 of a row, [`LANES`] at a time, with their weights and the number of the first.
fn quantize_weighted(values: &[f32], importance: &[f32], mut fit: impl FnMut(usize, &[[f32; 32]], &Weights<32>)) {
    let spread = squares(values) / values.len() as f32;
    let (blocks, importance) = (values.as_chunks::<32>().0, importance.as_chunks::<32>().0);
    for (group, (x, importance)) in blocks.chunks(LANES).zip(importance.chunks(LANES)).enumerate() {
        let mut weights: Weights<32> = [[0.0; 32]; LANES];
        for ((weights, x), importance) in weights.iter_mut().zip(x).zip(importance) {
            *weights = weigh(x, importance, spread);
        }
        fit(LANES * group, x, &weights);
    }
}

/// The scales of a super-block of eight sub-blocks of 32 with packed six-bit scales and minima, as Q4_K and Q5_K have it.
pub(super) struct PackedScales {
    /// Scale of the scales.
    pub(super) d: Half,
    /// Scale of the minima.
    pub(super) dmin: Half,
    /// Scales and minima.
    pub(super) packed: [u8; 12],
}

impl PackedScales {
    /// From sub-blocks that were fitted by their values alone: the largest scale and the largest minimum become 63.
    fn of_largest(scales: &[f32; 8], minima: &[f32; 8]) -> PackedScales {
        let (top_scale, top_min) = (largest(scales), largest(minima));
        // The conversion to a byte comes before the limit, as in the reference.
        let quantize = |top: f32, values: &[f32; 8]| {
            let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
            values.map(|value| (nearest(inverse * value) as u8).min(63))
        };
        let packed = pack_scales_and_minima(&quantize(top_scale, scales), &quantize(top_min, minima));
        PackedScales { d: Half::of(top_scale / 63.0), dmin: Half::of(top_min / 63.0), packed }
    }

    /// From sub-blocks that count as much as the sums of their weights.
    fn of_weighted(scales: &[f32; 8], minima: &[f32; 8], sums: &[f32; 8]) -> PackedScales {
        let (d, scales) = fit_positive(scales, sums, 63);
        let (dmin, minima) = fit_positive(minima, sums, 63);
        PackedScales { d: Half::of(d), dmin: Half::of(dmin), packed: pack_scales_and_minima(&scales, &minima) }
    }
}

/// Encodes a row of super-blocks with [`PackedScales`], without importance by `plain`; gives `store` the number of each
/// super-block, its scales and its integers.
pub(super) fn quantize_packed(
    cpu: Cpu,
    plain: MinimumSearch,
    values: &[f32],
    importance: Option<&[f32]>,
    mut store: impl FnMut(usize, PackedScales, &[u8; SUPER]),
) {
    let search = if importance.is_some() { MinimumSearch::weighted(plain.limit) } else { plain };
    for (pair, values) in values.chunks(2 * SUPER).enumerate() {
        let x = values.as_chunks::<32>().0;
        let mut weights: Weights<32> = [[0.0; 32]; LANES];
        if let Some(importance) = importance {
            let importance = importance[2 * SUPER * pair..][..values.len()].as_chunks::<32>().0;
            for (s, values) in values.chunks_exact(SUPER).enumerate() {
                let spread = 2.0 * squares(values) / SUPER as f32;
                for j in 8 * s..8 * s + 8 {
                    weights[j] = weigh(&x[j], &importance[j], spread);
                }
            }
        } else {
            for (weights, x) in weights.iter_mut().zip(x) {
                let mean = (squares(x) / 32.0).sqrt();
                *weights = x.map(|x| mean + x.abs());
            }
        }
        let mut fits = [MinimumFit::default(); LANES];
        search.fit_each(cpu, x, &weights, &mut fits);
        for (s, x) in x.chunks_exact(8).enumerate() {
            let fits = &fits[8 * s..][..8];
            let scales = core::array::from_fn(|j| fits[j].scale);
            let minima = core::array::from_fn(|j| fits[j].min);
            let scales = if importance.is_some() {
                PackedScales::of_weighted(&scales, &minima, &core::array::from_fn(|j| sum(&weights[8 * s + j])))
            } else {
                PackedScales::of_largest(&scales, &minima)
            };
            let (factors, minima) = scales_and_minima(&scales.packed);
            let (d, dmin) = (scales.d.get(), scales.dmin.get());
            let mut levels = [0; SUPER];
            for (j, levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (scale, min) = (d * f32::from(factors[j]), dmin * f32::from(minima[j]));
                *levels = round_above_minimum(&x[j], scale, min, &search, &fits[j]);
            }
            store(2 * pair + s, scales, &levels);
        }
    }
}
