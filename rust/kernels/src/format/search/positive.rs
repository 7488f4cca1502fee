//! The search for a scale of values that are not negative, such as the scales and minima of sub-blocks.

use super::signed::sums;
use super::{TINY, largest};
use crate::format::round::nearest;

/// Finds a scale and integers in `0..=limit` with a small sum of `weight (x - scale q)^2` for values that are not negative: nine
/// trial scales, and the integers of the best are improved one at a time in at most five rounds.
///
/// The integers of negative values (which rounding can give) wrap around as bytes, as in the reference.
pub(in crate::format) fn fit_positive<const N: usize>(x: &[f32; N], weights: &[f32; N], limit: i32) -> (f32, [u8; N]) {
    let top = largest(x);
    if top < TINY {
        return (0.0, [0; N]);
    }
    let error = |scale: f32, levels: [i32; N]| {
        let terms = x.iter().zip(weights).zip(levels);
        terms.fold(0.0, |sum, ((&x, &w), q)| {
            let difference = x - scale * q as f32;
            sum + w * difference * difference
        })
    };
    let round = |inverse: f32| x.map(|x| nearest(inverse * x).min(limit));
    let mut inverse = limit as f32 / top;
    let mut best = error(1.0 / inverse, x.map(|x| i32::from(nearest(inverse * x) as u8)));
    for step in (-4..=4).filter(|&step| step != 0) {
        let trial = (0.1 * step as f32 + limit as f32) / top;
        let error = error(1.0 / trial, round(trial));
        if error < best {
            (best, inverse) = (error, trial);
        }
    }
    let rounded = round(inverse);
    let (mut xl, mut ll) = sums(x, weights, &rounded);
    let mut levels = rounded.map(|q| q as u8);
    for _ in 0..5 {
        let mut changed = false;
        for ((&x, &w), level) in x.iter().zip(weights).zip(&mut levels) {
            let old = f32::from(*level);
            // The sums without this value; their quotient is the inverse of the scale that the others ask for.
            let (other_xl, other_ll) = (xl - w * x * old, ll - w * old * old);
            if other_xl > 0.0 && other_ll > 0.0 {
                let q = nearest(x * other_ll / other_xl).min(limit);
                if q != i32::from(*level) {
                    let new = q as f32;
                    let (new_xl, new_ll) = (other_xl + w * x * new, other_ll + w * new * new);
                    if new_xl * new_xl * ll > xl * xl * new_ll {
                        (*level, xl, ll) = (q as u8, new_xl, new_ll);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if ll > 0.0 { xl / ll } else { 0.0 }, levels)
}
