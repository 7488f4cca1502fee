//! The softmax of a tile.

use super::blocks::Line;
use super::{Query, Scores, State, TILE, VECTORS};
use crate::isa::floats::Floats;
use crate::{LANES, math};

/// One tile of keys, starting at position `start`.
#[derive(Clone, Copy)]
pub(super) struct Tile<I> {
    pub(super) isa: I,
    pub(super) scores: Scores,
    pub(super) start: usize,
}

impl<I: Floats> Tile<I> {
    /// Whether `query` sees any key of the tile.
    #[inline(always)]
    pub(super) fn sees(self, query: &Query) -> bool {
        query.start < self.start + TILE && self.start < query.end
    }

    /// The keys of the tile that `query` sees, counted from the tile's start; empty (0..0) when it sees none.
    #[inline(always)]
    pub(super) fn range(self, query: &Query) -> (usize, usize) {
        if self.sees(query) {
            (query.start.max(self.start) - self.start, (query.end - self.start).min(TILE))
        } else {
            (0, 0)
        }
    }

    /// Turns the dot products `s` of a query into weights, zero outside the range, and gives the factor of its earlier
    /// weights (1 when it sees nothing here).
    #[inline(always)]
    pub(super) fn softmax(self, s: &mut [Line; VECTORS], (start, end): (usize, usize), state: &mut State) -> f32 {
        if start == end {
            return 1.0;
        }
        let isa = self.isa;
        let (scale, nothing) = (isa.splat(self.scores.scale), isa.splat(f32::NEG_INFINITY));
        let mut x = [nothing; VECTORS];
        for (x, s) in x.iter_mut().zip(s.iter()) {
            *x = isa.mul(isa.load(&s.0), scale);
        }
        if let Some(cap) = self.scores.softcap {
            let cap = isa.splat(cap);
            for x in &mut x {
                *x = math::softcap(isa, *x, cap);
            }
        }
        if (start, end) != (0, TILE) {
            // -∞ is below every score, and its weight is zero.
            for (v, x) in x.iter_mut().enumerate() {
                let (start, end) = (start.saturating_sub(v * LANES), end.saturating_sub(v * LANES));
                *x = isa.select_lanes(start.min(LANES), end.min(LANES), *x, nothing);
            }
        }
        let mut largest = nothing;
        for x in x {
            largest = isa.max(largest, x);
        }
        let tile_max = isa.largest(largest);
        let max = if state.max > tile_max { state.max } else { tile_max };
        let factor = isa.largest(math::exp(isa, isa.splat(state.max - max)));
        let shift = isa.splat(max);
        let mut sum = isa.splat(0.0);
        for (x, s) in x.into_iter().zip(s) {
            let p = math::exp(isa, isa.sub(x, shift));
            sum = isa.add(sum, p);
            isa.store(p, &mut s.0);
        }
        state.max = max;
        state.sum = state.sum.mul_add(factor, isa.sum(sum));
        factor
    }
}
