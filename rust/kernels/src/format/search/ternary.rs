//! The search for the points of the grid of IQ1_S and IQ1_M: `scale * (t + shift)` with `t` of -1, 0, 1 and a shift of plus or
//! minus an eighth.

use crate::format::points::Points;

/// What is added to (or subtracted from) the weights.
const SHIFT: f32 = 0.125;

/// The values of the codes, with the shift added and subtracted.
pub(in crate::format) const VALUES: [[f32; 3]; 2] =
    [[-1.0 + SHIFT, SHIFT, 1.0 + SHIFT], [-1.0 - SHIFT, -SHIFT, 1.0 - SHIFT]];

/// A sub-block of `SIZE` weights; of the arrays as many items as it has eights.
#[derive(Clone, Copy, Debug)]
pub(in crate::format) struct TernaryFit {
    /// Not negative; 0 for a sub-block of zeros, which then has entries of number 0.
    pub(in crate::format) scale: f32,
    /// The numbers of the entries.
    pub(in crate::format) numbers: [u16; 4],
    /// Whether the shift is subtracted, in the first and in the second half of the sub-block.
    pub(in crate::format) minus: [bool; 2],
}

impl TernaryFit {
    /// That of zeros.
    pub(in crate::format) const ZEROS: TernaryFit = TernaryFit { scale: 0.0, numbers: [0; 4], minus: [false; 2] };
}

/// The best split of the sorted weights into those of codes 0, 1 and 2.
struct Split {
    /// Where code 1 and code 2 begin.
    at: [usize; 2],
    /// Whether the shift is subtracted, in each half.
    minus: [bool; 2],
    scale: f32,
}

/// Finds scale, shifts and entries of a sub-block with a small sum of `weight * error^2`. Below the magnitude `tiny` it is zeros.
///
/// With three values, the best split of the sorted weights is found by trying all: with one shift for the sub-block (`HALVES`
/// is false), or one for each half of it. The codes that are not in the grid then become those of a neighbour.
pub(in crate::format) fn fit_ternary<const SIZE: usize, const HALVES: bool>(
    points: &Points<8>,
    x: &[f32; SIZE],
    weights: &[f32; SIZE],
    tiny: f32,
) -> TernaryFit {
    let top = x[1..].iter().fold(x[0].abs(), |top, x| if top > x.abs() { top } else { x.abs() });
    if top < tiny {
        return TernaryFit::ZEROS;
    }
    let order = ascending(x);
    let split = if HALVES { split_halves(x, weights, &order) } else { split_whole(x, weights, &order) };
    let Some(Split { at, mut minus, mut scale }) = split else {
        return TernaryFit::ZEROS;
    };
    let mut codes = [0; SIZE];
    for (place, &i) in order.iter().enumerate() {
        codes[i] = at.iter().map(|&at| u8::from(place >= at)).sum();
    }
    if scale < 0.0 {
        codes = codes.map(|code| 2 - code);
        scale = -scale;
        minus = minus.map(|minus| !minus);
    }
    let values = |k: usize| &VALUES[usize::from(minus[k * 16 / SIZE])];
    let eights = || x.as_chunks::<8>().0.iter().zip(weights.as_chunks::<8>().0).enumerate();
    let mut fit = TernaryFit { scale, numbers: [0; 4], minus };
    let mut on_grid = true;
    for (k, (x, weights)) in eights() {
        let codes = &codes.as_chunks::<8>().0[k];
        let number = points.number(codes).unwrap_or_else(|| {
            on_grid = false;
            let value = |code| values(k).get(usize::from(code)).map_or(0.0, |value| scale * value);
            points.best_neighbour::<4>(codes, x, weights, value)
        });
        fit.numbers[k] = number as u16;
    }
    if !on_grid {
        let (mut xq, mut qq) = (0.0, 0.0);
        for (k, (x, weights)) in eights() {
            let codes = points.codes(usize::from(fit.numbers[k]));
            for ((&x, &w), &code) in x.iter().zip(weights).zip(codes) {
                let q = values(k)[usize::from(code)];
                xq += w * q * x;
                qq += w * q * q;
            }
        }
        if xq > 0.0 && qq > 0.0 {
            fit.scale = xq / qq;
        }
    }
    fit
}

/// The numbers of the values in ascending order, equal ones as they came.
fn ascending<const SIZE: usize>(x: &[f32; SIZE]) -> [usize; SIZE] {
    let mut order = core::array::from_fn(|i| i);
    // By insertion, which takes a NaN without complaint.
    for end in 1..SIZE {
        let mut at = end;
        while at > 0 && x[order[at]] < x[order[at - 1]] {
            order.swap(at, at - 1);
            at -= 1;
        }
    }
    order
}

/// The best split with one shift.
fn split_whole<const SIZE: usize>(x: &[f32; SIZE], weights: &[f32; SIZE], order: &[usize; SIZE]) -> Option<Split> {
    // Sums of the first weights in order; of all, the last one.
    let (mut sums_x, mut sums_w) = ([0.0f32; 33], [0.0f32; 33]);
    for (place, &i) in order.iter().enumerate() {
        sums_x[place + 1] = sums_x[place] + weights[i] * x[i];
        sums_w[place + 1] = sums_w[place] + weights[i];
    }
    let mut best = f32::MIN;
    let mut found = None;
    for first in 0..=SIZE {
        for second in first..=SIZE {
            let parts =
                |sums: &[f32; 33]| [sums[first] - sums[0], sums[second] - sums[first], sums[SIZE] - sums[second]];
            let ([x0, x1, x2], [w0, w1, w2]) = (parts(&sums_x), parts(&sums_w));
            for (minus, [v0, v1, v2]) in [false, true].into_iter().zip(VALUES) {
                let xq = x0 * v0 + x1 * v1 + x2 * v2;
                let qq = w0 * v0 * v0 + w1 * v1 * v1 + w2 * v2 * v2;
                if qq > 0.0 && xq * xq > best * qq {
                    let scale = xq / qq;
                    best = scale * xq;
                    found = Some(Split { at: [first, second], minus: [minus; 2], scale });
                }
            }
        }
    }
    found
}

/// The best split with a shift for each half.
fn split_halves<const SIZE: usize>(x: &[f32; SIZE], weights: &[f32; SIZE], order: &[usize; SIZE]) -> Option<Split> {
    const SHIFTS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];
    // What each weight adds to the sums of `w q x` and of `w q^2` for the four pairs of shifts, by its code.
    let terms: [[[f32; 8]; 3]; SIZE] = core::array::from_fn(|place| {
        let i = order[place];
        core::array::from_fn(|code| {
            core::array::from_fn(|sum| {
                let value = VALUES[usize::from(SHIFTS[sum % 4][i * 2 / SIZE])][code];
                weights[i] * value * if sum < 4 { x[i] } else { value }
            })
        })
    });
    let add = |sums: &mut [f32; 8], terms: &[f32; 8]| sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    let mut best = f32::MIN;
    let mut found = None;
    // The sums of the weights before `first` and before `second`.
    let mut below_first = [0.0; 8];
    for first in 0..=SIZE {
        let mut below_second = below_first;
        for second in first..=SIZE {
            let mut sums = below_second;
            terms[second..].iter().for_each(|terms| add(&mut sums, &terms[2]));
            for (k, minus) in SHIFTS.into_iter().enumerate() {
                let (xq, qq) = (sums[k], sums[4 + k]);
                if qq > 0.0 && xq * xq > best * qq {
                    let scale = xq / qq;
                    best = scale * xq;
                    found = Some(Split { at: [first, second], minus, scale });
                }
            }
            if second < SIZE {
                add(&mut below_second, &terms[second][1]);
            }
        }
        if first < SIZE {
            add(&mut below_first, &terms[first][0]);
        }
    }
    found
}
