//! The search for the points of a grid, with which IQ2 and IQ3 encode: magnitudes `scale * (2 code + 1)` and signs.

use super::positive::fit_positive;
use super::{TINY, squares, weigh};
use crate::format::layout::SUPER;
use crate::format::points::Points;
use crate::format::round::nearest;

/// What the formats differ in.
#[derive(Clone, Copy)]
pub(in crate::format) struct GridSearch {
    /// Number of codes.
    pub(in crate::format) codes: u8,
    /// Whether the number of signs is even in every eight weights: where it is not, the sign of the weight that matters least is
    /// turned.
    pub(in crate::format) even_signs: bool,
    /// The spread in the weights of the errors, in mean squares of the super-block.
    pub(in crate::format) spread: f32,
    /// What the mean square of the super-block adds to the squares that are the weights without importance.
    pub(in crate::format) plain_spread: f32,
    /// Groups below this magnitude are zeros; at 0, those of magnitude 0.
    pub(in crate::format) tiny: f32,
    /// Trial scales map the largest value to `2 codes - 1 + i * step`, `i` in `-steps..=steps`.
    pub(in crate::format) steps: i8,
    /// See `steps`.
    pub(in crate::format) step: f32,
    /// How the trials begin, and which entries are looked for again with the scale that was found.
    pub(in crate::format) refinement: Refinement,
    /// What the scale of the scales is multiplied with, after the scales are rounded.
    pub(in crate::format) correction: f32,
}

/// See [`GridSearch`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::format) enum Refinement {
    /// Trials around the scale of [`fit_positive`]; then every entry.
    All,
    /// Trials around the largest value; then the entries that were neighbours of what the values round to.
    Neighbours,
    /// Trials around the largest value; then every entry, if one was a neighbour (or no trial was good).
    AllIfNeighbours,
}

/// A group of `SIZE` weights; of the arrays as many items as it has eights and entries.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::format) struct GridFit {
    /// Not negative; 0 for a group of zeros, which then has no signs and entries of number 0.
    pub(in crate::format) scale: f32,
    /// The signs of each eight weights.
    pub(in crate::format) signs: [u8; 4],
    /// The numbers of the entries.
    pub(in crate::format) numbers: [u16; 8],
}

/// What [`GridSearch::super_block`] found: groups, and their scales for the file.
pub(in crate::format) struct GridFits<const GROUPS: usize> {
    pub(in crate::format) groups: [GridFit; GROUPS],
    /// The scale of the scales; 0 when those of all groups are.
    pub(in crate::format) d: f32,
    /// `s` of `2 s + 1`, 0..16.
    pub(in crate::format) scales: [u8; GROUPS],
}

impl GridSearch {
    /// Encodes a super-block of `GROUPS` groups of `SIZE`.
    pub(in crate::format) fn super_block<const GROUPS: usize, const SIZE: usize, const WIDTH: usize>(
        &self,
        points: &Points<WIDTH>,
        values: &[f32],
        importance: Option<&[f32]>,
    ) -> GridFits<GROUPS> {
        let mean_square = |factor: f32| factor * squares(values) / SUPER as f32;
        let spread = mean_square(self.spread);
        let mut groups = [GridFit::default(); GROUPS];
        for (j, (x, group)) in values.as_chunks::<SIZE>().0.iter().zip(&mut groups).enumerate() {
            let weights = match importance {
                Some(importance) => weigh(x, &importance.as_chunks().0[j], spread),
                None if self.plain_spread == 0.0 => x.map(|x| x * x),
                None => x.map(|x| self.plain_spread * spread + x * x),
            };
            *group = self.fit::<SIZE, WIDTH>(points, x, &weights);
        }
        let top = groups.iter().fold(0.0, |top, group| if top > group.scale { top } else { group.scale });
        if top == 0.0 {
            return GridFits { groups, d: 0.0, scales: [0; GROUPS] };
        }
        let d = top / 31.0;
        let inverse = 1.0 / d;
        let scales = groups.map(|group| nearest(0.5 * (inverse * group.scale - 1.0)).clamp(0, 15) as u8);
        GridFits { groups, d: if self.correction == 1.0 { d } else { d * self.correction }, scales }
    }

    /// Finds scale, signs and entries of a group with a small sum of `weight * error^2`.
    fn fit<const SIZE: usize, const WIDTH: usize>(
        &self,
        points: &Points<WIDTH>,
        x: &[f32; SIZE],
        weights: &[f32; SIZE],
    ) -> GridFit {
        let (magnitudes, mut signs) = self.magnitudes(x, weights);
        let top = magnitudes[1..].iter().fold(magnitudes[0], |top, &x| if top > x { top } else { x });
        if if self.tiny == 0.0 { top == 0.0 } else { top < self.tiny } {
            return GridFit::default();
        }
        let limit = f32::from(2 * self.codes - 1);
        let (mut scale, reference) = if self.refinement == Refinement::All {
            let (scale, _) = fit_positive(&magnitudes, weights, i32::from(self.codes) + 1);
            let reference = scale * f32::from(self.codes);
            if reference <= 0.0 {
                return GridFit::default();
            }
            (scale, reference)
        } else {
            (top / limit, top)
        };
        let parts = Parts::<SIZE, WIDTH> {
            points,
            x: &magnitudes,
            weights,
            roots: &weights.map(f32::sqrt),
            codes: i32::from(self.codes),
        };
        let mut best = 0.0;
        let mut codes = [0; SIZE];
        let mut on_grid = [self.refinement == Refinement::Neighbours; 8];
        for step in -self.steps..=self.steps {
            let inverse = (limit + f32::from(step) * self.step) / reference;
            let (mut trial, mut trial_on_grid) = ([0; SIZE], [true; 8]);
            for (k, on_grid) in trial_on_grid.iter_mut().take(SIZE / WIDTH).enumerate() {
                *on_grid = parts.encode(k, inverse, 1.0 / inverse, &mut trial);
            }
            let (xq, qq) = parts.sums(&trial);
            if qq > 0.0 && xq * xq > best * qq {
                scale = xq / qq;
                best = scale * xq;
                (codes, on_grid) = (trial, trial_on_grid);
            }
        }
        let again = self.refinement == Refinement::All || on_grid[..SIZE / WIDTH].iter().any(|on| !on);
        if again && scale > 0.0 {
            let inverse = 1.0 / scale;
            for (k, on_grid) in on_grid.iter().take(SIZE / WIDTH).enumerate() {
                if self.refinement != Refinement::Neighbours || !on_grid {
                    parts.encode(k, inverse, scale, &mut codes);
                }
            }
            let (xq, qq) = parts.sums(&codes);
            if qq > 0.0 {
                scale = xq / qq;
            }
        }
        if scale < 0.0 {
            scale = -scale;
            signs = signs.map(|signs| !signs);
        }
        let mut numbers = [0; 8];
        for (number, codes) in numbers.iter_mut().zip(codes.as_chunks::<WIDTH>().0) {
            *number = points.number(codes).unwrap_or(0) as u16;
        }
        GridFit { scale, signs, numbers }
    }

    /// Magnitudes and signs; with even signs, one magnitude of eight may be negative.
    fn magnitudes<const SIZE: usize>(&self, x: &[f32; SIZE], weights: &[f32; SIZE]) -> ([f32; SIZE], [u8; 4]) {
        let mut magnitudes = *x;
        let mut signs = [0; 4];
        let eights = magnitudes.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0);
        for ((magnitudes, weights), signs) in eights.zip(&mut signs) {
            let x = *magnitudes;
            for (i, magnitude) in magnitudes.iter_mut().enumerate() {
                let positive = *magnitude >= 0.0;
                *magnitude = if positive { *magnitude } else { -*magnitude };
                *signs |= u8::from(!positive) << i;
            }
            if self.even_signs && signs.count_ones() % 2 == 1 {
                let matters = |i: usize| weights[i] * x[i] * x[i];
                let least = (1..8).fold(0, |least, i| if matters(i) < matters(least) { i } else { least });
                magnitudes[least] = -magnitudes[least];
                *signs ^= 1 << least;
            }
        }
        (magnitudes, signs)
    }
}

/// The entries of a group.
struct Parts<'a, const SIZE: usize, const WIDTH: usize> {
    points: &'a Points<WIDTH>,
    x: &'a [f32; SIZE],
    weights: &'a [f32; SIZE],
    /// The square roots of the weights, by which neighbours are compared.
    roots: &'a [f32; SIZE],
    codes: i32,
}

impl<const SIZE: usize, const WIDTH: usize> Parts<'_, SIZE, WIDTH> {
    /// Sets the codes of entry `k` to those nearest to `inverse * x`, or to those of the best neighbour. Whether it was the former.
    #[inline(always)]
    fn encode(&self, k: usize, inverse: f32, scale: f32, codes: &mut [u8; SIZE]) -> bool {
        let x = &self.x.as_chunks::<WIDTH>().0[k];
        let codes = &mut codes.as_chunks_mut::<WIDTH>().0[k];
        *codes = x.map(|x| nearest(0.5 * (inverse * x - 1.0)).clamp(0, self.codes - 1) as u8);
        if self.points.number(codes).is_some() {
            return true;
        }
        let roots = &self.roots.as_chunks::<WIDTH>().0[k];
        let value = |code| scale * f32::from(2 * code + 1);
        let best = if WIDTH == 8 {
            self.points.best_neighbour::<4>(codes, x, roots, value)
        } else {
            self.points.best_neighbour::<8>(codes, x, roots, value)
        };
        *codes = *self.points.codes(best);
        false
    }

    /// Sums of `w x q` and `w q^2` with `q = 2 code + 1`.
    fn sums(&self, codes: &[u8; SIZE]) -> (f32, f32) {
        let (mut xq, mut qq) = (0.0, 0.0);
        for ((&x, &w), &code) in self.x.iter().zip(self.weights).zip(codes) {
            let q = f32::from(2 * code + 1);
            xq += w * x * q;
            qq += w * q * q;
        }
        (xq, qq)
    }
}

impl GridFit {
    /// The words of seven signs for each eight weights (the eighth makes their number even), from the lowest bits on.
    pub(in crate::format) fn sevens(&self) -> u32 {
        self.signs.iter().enumerate().fold(0, |word, (k, &signs)| word | u32::from(signs & 127) << (7 * k))
    }
}

/// [`GridSearch::tiny`] of most searches.
pub(in crate::format) const ZEROS: f32 = TINY;
