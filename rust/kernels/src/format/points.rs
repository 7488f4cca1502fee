//! The points of a grid as its quantizers need them: which entry has given codes, and which entries are near where none has.

use super::grid::Grid;

/// Not the number of an entry.
const NONE: u16 = u16::MAX;

/// The entries of a grid by their codes.
///
/// A point is a word of `WIDTH` codes, the first in the lowest bits. What a quantizer asks for has codes that a weight can have:
/// those below the number of magnitudes.
#[derive(Debug)]
pub(super) struct Points<const WIDTH: usize> {
    /// The codes of each entry.
    codes: Vec<[u8; WIDTH]>,
    /// The number of the entry at each point, or [`NONE`].
    numbers: Vec<u16>,
    /// Where in `near` the neighbours of each point begin; those of an entry are none.
    starts: Vec<u32>,
    /// Numbers of entries, for each point the nearest first, of two at the same distance the lower one.
    near: Vec<u16>,
}

impl<const WIDTH: usize> Points<WIDTH> {
    /// The points of `grid` for codes below `codes`, with the entries at the `rings` smallest distances as neighbours.
    pub(super) fn new<const N: usize>(grid: &Grid<N, WIDTH>, codes: usize, rings: usize) -> Points<WIDTH> {
        let bits = Grid::<N, WIDTH>::BITS as usize;
        let half = bits * WIDTH / 2;
        let code = |point: usize, b: usize| point >> (bits * b) & ((1 << bits) - 1);
        // The distance of points is that of their lower halves plus that of their upper ones.
        let square = |a: usize, b: usize| a.abs_diff(b).pow(2);
        let distance = |a: usize, b: usize| (0..WIDTH / 2).map(|i| square(code(a, i), code(b, i))).sum::<usize>() as u8;
        let distances: Vec<u8> =
            (0..1usize << (2 * half)).map(|ab| distance(ab >> half, ab & ((1 << half) - 1))).collect();

        let mut numbers = vec![NONE; 1 << (2 * half)];
        for i in 0..N {
            numbers[usize::from(grid.planes[0][i]) | usize::from(grid.planes[1][i]) << half] = i as u16;
        }
        let (mut starts, mut near) = (vec![0], Vec::new());
        // Entries by distance. The largest distance of codes is 7 in IQ3, that of points 4 * 49.
        let mut by_distance: Vec<Vec<u16>> = vec![Vec::new(); 4 * 49 + 1];
        for (point, &number) in numbers.iter().enumerate() {
            if number == NONE && (0..WIDTH).all(|b| code(point, b) < codes) {
                let low = &distances[(point & ((1 << half) - 1)) << half..][..1 << half];
                let high = &distances[(point >> half) << half..][..1 << half];
                by_distance.iter_mut().for_each(Vec::clear);
                for (i, (&a, &b)) in grid.planes[0].iter().zip(&grid.planes[1]).enumerate() {
                    by_distance[usize::from(low[usize::from(a)]) + usize::from(high[usize::from(b)])].push(i as u16);
                }
                near.extend(by_distance.iter().filter(|ring| !ring.is_empty()).take(rings).flatten());
            }
            starts.push(near.len() as u32);
        }
        let codes = |i: usize| {
            let point = usize::from(grid.planes[0][i]) | usize::from(grid.planes[1][i]) << half;
            core::array::from_fn(|b| code(point, b) as u8)
        };
        Points { codes: (0..N).map(codes).collect(), numbers, starts, near }
    }

    /// The word of `codes`.
    #[inline(always)]
    fn point(codes: &[u8; WIDTH]) -> usize {
        // As in the grid: eight codes of two bits, or four of three.
        let bits = if WIDTH == 8 { 2 } else { 3 };
        codes.iter().rev().fold(0, |point, &code| point << bits | usize::from(code))
    }

    /// The number of the entry with these codes.
    #[inline(always)]
    pub(super) fn number(&self, codes: &[u8; WIDTH]) -> Option<usize> {
        Some(self.numbers[Self::point(codes)]).filter(|&number| number != NONE).map(usize::from)
    }

    /// The codes of entry `number`.
    #[inline(always)]
    pub(super) fn codes(&self, number: usize) -> &[u8; WIDTH] {
        &self.codes[number]
    }

    /// The neighbour of the point with these codes, which is not an entry, for which the sum of `weight (value(code) - x)^2` is
    /// smallest, the first one of several. The nearest one where no sum is a number below infinity. `CODES` is a power of two, and
    /// above every code.
    #[inline(always)]
    pub(super) fn best_neighbour<const CODES: usize>(
        &self,
        codes: &[u8; WIDTH],
        x: &[f32; WIDTH],
        weights: &[f32; WIDTH],
        value: impl Fn(u8) -> f32,
    ) -> usize {
        // What each weight adds, by its code: neighbours are many, codes are few.
        let terms: [[f32; CODES]; WIDTH] = core::array::from_fn(|i| {
            core::array::from_fn(|code| {
                let difference = value(code as u8) - x[i];
                weights[i] * difference * difference
            })
        });
        let point = Self::point(codes);
        let near = &self.near[self.starts[point] as usize..self.starts[point + 1] as usize];
        let (mut best, mut found) = (f32::MAX, near[0]);
        for &number in near {
            let codes = self.codes(usize::from(number));
            let sum = terms.iter().zip(codes).fold(0.0, |sum, (terms, &code)| sum + terms[usize::from(code) % CODES]);
            if sum < best {
                (best, found) = (sum, number);
            }
        }
        usize::from(found)
    }
}
