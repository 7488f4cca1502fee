//! Search and error feedback for the formats with a codebook: entries of four or eight weights are chosen as one.
//!
//! Every entry is tried. What one costs is the sum of what its two halves cost, and halves are few, so a trial is one addition for each
//! of sixteen rows.
//!
//! With feedback (see [`feedback`](super::feedback())), a unit of columns, those of an entry, is rounded together and the columns behind
//! make its error good, as the block LDLQ of QuIP# (arXiv 2402.04396) and GPTVQ (arXiv 2402.15319) do. What an error `r` of a unit costs then
//! is `r M r^T` with `M = U^-1 U^-T`, `U` the unit's corner of the factor. Entries are chosen by the diagonal of `M` and then again with
//! every column moved to where the errors of the others in the unit would have it.

use super::feedback::{Feedback, advance};
use super::lanes::{LANES, Lanes, all, map2, nearest, reciprocals, select};
use super::search::fill;
use crate::format::Codebook;
use crate::format::codebook::{CodebookParts, EntrySigns};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::isa::{Isa, Kernel};

/// Weights of a block.
const BLOCK: usize = 256;

/// Most weights that share a scale.
const SUB: usize = 32;

/// Most weights of a unit.
const UNIT: usize = 8;

/// How often the entries of a unit are chosen again.
const AGAIN: usize = 1;

/// What is tried for the largest weight of a sub-block to become, in parts of the largest value.
const TRIALS: usize = 6;

/// Entries of a sub-block: what the weights become, and how it is stored.
#[derive(Clone, Copy)]
struct Chosen<const N: usize> {
    /// With signs.
    values: [Lanes; N],
    /// Numbers of entries.
    numbers: [[u16; LANES]; SUB / 4],
    /// Of each eight weights.
    signs: [[u8; LANES]; SUB / 8],
}

impl<const N: usize> Chosen<N> {
    const NONE: Chosen<N> =
        Chosen { values: [[0.0; LANES]; N], numbers: [[0; LANES]; SUB / 4], signs: [[0; LANES]; SUB / 8] };

    /// Takes from `other` the lanes of `which`.
    fn take(&mut self, other: &Chosen<N>, which: &[bool; LANES]) {
        for (own, other) in self.values.iter_mut().zip(&other.values) {
            *own = select(which, other, own);
        }
        for l in (0..LANES).filter(|l| which[*l]) {
            self.numbers.iter_mut().zip(&other.numbers).for_each(|(own, other)| own[l] = other[l]);
            self.signs.iter_mut().zip(&other.signs).for_each(|(own, other)| own[l] = other[l]);
        }
    }
}

/// What the halves of all entries cost.
struct Halves([[Lanes; 256]; 2]);

/// Chooses entries.
struct Coder<'a> {
    book: &'a Codebook,
    halves: Box<Halves>,
}

impl Coder<'_> {
    fn new(book: &Codebook) -> Coder<'_> {
        Coder { book, halves: Box::new(Halves([[all(0.0); 256]; 2])) }
    }

    /// The number of the entry with the least sum of `w (x - scale value)^2`, and that sum.
    #[inline(always)]
    fn entry(&mut self, x: &[Lanes], w: &[Lanes], scale: &Lanes, negative: bool) -> ([u16; LANES], Lanes) {
        let (book, bits, half) = (self.book, self.book.bits(), x.len() / 2);
        for ((table, x), w) in self.halves.0.iter_mut().zip(x.chunks_exact(half)).zip(w.chunks_exact(half)) {
            let mut terms = [[all(0.0); 8]; UNIT / 2];
            for ((terms, x), w) in terms.iter_mut().zip(x).zip(w) {
                for (code, term) in terms[..book.codes].iter_mut().enumerate() {
                    let value = book.value(code, negative);
                    for l in 0..LANES {
                        let error = x[l] - scale[l] * value;
                        term[l] = w[l] * (error * error);
                    }
                }
            }
            'points: for (point, sum) in table[..1 << (bits * half)].iter_mut().enumerate() {
                let code = |b: usize| point >> (bits * b) & ((1 << bits) - 1);
                *sum = all(0.0);
                for (b, terms) in terms[..half].iter().enumerate() {
                    if code(b) >= book.codes {
                        continue 'points;
                    }
                    for l in 0..LANES {
                        sum[l] += terms[code(b)][l];
                    }
                }
            }
        }
        let [low, high] = &self.halves.0;
        let (mut best, mut found) = (all(f32::INFINITY), all(0.0));
        for (number, (a, b)) in book.planes[0].iter().zip(book.planes[1]).enumerate() {
            let (a, b, number) = (&low[usize::from(*a)], &high[usize::from(*b)], number as f32);
            for l in 0..LANES {
                let cost = a[l] + b[l];
                let better = cost < best[l];
                best[l] = if better { cost } else { best[l] };
                found[l] = if better { number } else { found[l] };
            }
        }
        (found.map(|number| number as u16), best)
    }

    /// Entries and signs of a unit; of a shift, `shift` says which (without, none).
    #[inline(always)]
    fn unit(&mut self, x: &[Lanes], w: &[Lanes], scale: &Lanes, shift: &[bool; LANES]) -> Chosen<UNIT> {
        let book = self.book;
        let mut chosen = Chosen::NONE;
        let mut magnitudes = [all(0.0); UNIT];
        let mut factors = [all(1.0); UNIT];
        match book.signs {
            EntrySigns::Shift(_) => {
                let plus = self.entry(x, w, scale, false).0;
                let minus = self.entry(x, w, scale, true).0;
                chosen.numbers[0] = core::array::from_fn(|l| if shift[l] { minus[l] } else { plus[l] });
                chosen.signs[0] = shift.map(|minus| if minus { 0xff } else { 0 });
            }
            signs => {
                // The sign of each weight, as a factor.
                for (i, x) in x.iter().enumerate() {
                    factors[i] = x.map(|x| if x < 0.0 { -1.0 } else { 1.0 });
                }
                if signs == EntrySigns::Even {
                    // An odd sign costs least where the weight matters least.
                    let (mut least, mut at, mut parity) = (all(f32::INFINITY), all(0.0), all(1.0));
                    for (i, (x, w)) in x.iter().zip(w).enumerate() {
                        for l in 0..LANES {
                            let matters = w[l] * (x[l] * x[l]);
                            let less = matters < least[l];
                            least[l] = if less { matters } else { least[l] };
                            at[l] = if less { i as f32 } else { at[l] };
                            parity[l] *= factors[i][l];
                        }
                    }
                    for (i, factors) in factors[..x.len()].iter_mut().enumerate() {
                        for l in 0..LANES {
                            factors[l] *= if at[l] == i as f32 { parity[l] } else { 1.0 };
                        }
                    }
                }
                for (i, x) in x.iter().enumerate() {
                    magnitudes[i] = map2(x, &factors[i], |x, factor| x * factor);
                }
                for (e, at) in (0..x.len()).step_by(book.width).enumerate() {
                    let columns = at..at + book.width;
                    chosen.numbers[e] = self.entry(&magnitudes[columns.clone()], &w[columns], scale, false).0;
                }
                chosen.signs[0] =
                    core::array::from_fn(|l| (0..x.len()).fold(0, |byte, i| byte | u8::from(factors[i][l] < 0.0) << i));
            }
        }
        for (i, (values, factors)) in chosen.values[..x.len()].iter_mut().zip(&factors).enumerate() {
            let numbers = &chosen.numbers[i / book.width];
            for l in 0..LANES {
                let code = book.code(usize::from(numbers[l]), i % book.width);
                values[l] = book.value(code, shift[l]) * factors[l];
            }
        }
        chosen
    }

    /// Which of two shifts suits weights that share one.
    #[inline(always)]
    fn shift(&mut self, x: &[Lanes], w: &[Lanes], scale: &Lanes) -> [bool; LANES] {
        let (mut plus, mut minus) = (all(0.0), all(0.0));
        for (x, w) in x.chunks_exact(self.book.width).zip(w.chunks_exact(self.book.width)) {
            plus = map2(&plus, &self.entry(x, w, scale, false).1, |sum, cost| sum + cost);
            minus = map2(&minus, &self.entry(x, w, scale, true).1, |sum, cost| sum + cost);
        }
        core::array::from_fn(|l| minus[l] < plus[l])
    }

    /// Entries and signs of a sub-block, and what they cost.
    #[inline(always)]
    fn sub(&mut self, x: &[Lanes], w: &[Lanes], scale: &Lanes) -> (Chosen<SUB>, Lanes) {
        let (book, step) = (self.book, self.book.unit_weights());
        let mut chosen = Chosen::<SUB>::NONE;
        let mut shift = [false; LANES];
        for at in (0..x.len()).step_by(step) {
            let columns = at..at + step;
            if let EntrySigns::Shift(count) = book.signs
                && at % count == 0
            {
                shift = self.shift(&x[at..at + count], &w[at..at + count], scale);
            }
            let unit = self.unit(&x[columns.clone()], &w[columns], scale, &shift);
            chosen.place(book, at, &unit);
        }
        let mut cost = all(0.0);
        for ((x, w), value) in x.iter().zip(w).zip(&chosen.values) {
            for l in 0..LANES {
                let error = x[l] - scale[l] * value[l];
                cost[l] += w[l] * (error * error);
            }
        }
        (chosen, cost)
    }

    /// A scale for a sub-block, and the sum of `w value^2` by which an error of it counts.
    #[inline(always)]
    fn fit(&mut self, x: &[Lanes], w: &[Lanes]) -> (Lanes, Lanes) {
        let mut peak = all(0.0);
        for x in x {
            for l in 0..LANES {
                peak[l] = if x[l].abs() > peak[l] { x[l].abs() } else { peak[l] };
            }
        }
        let shifts = matches!(self.book.signs, EntrySigns::Shift(_));
        // Three values beside zero reach far less than the largest weight; eight reach it.
        let (from, to) = match (shifts, self.book.codes) {
            (true, _) => (0.9, 2.6),
            (_, 3) => (0.75, 1.5),
            _ => (0.8, 1.25),
        };
        let limit = self.book.value(self.book.codes - 1, false);
        let (mut scale, mut weight, mut best) = (all(0.0), all(0.0), all(0.0));
        for trial in 0..=TRIALS {
            let attempt = if trial < TRIALS {
                let factor = from + (to - from) * trial as f32 / (TRIALS - 1) as f32;
                peak.map(|peak| peak / (limit * factor))
            } else {
                scale
            };
            let (chosen, _) = self.sub(x, w, &attempt);
            let (xv, vv) = sums(x, w, &chosen.values);
            for l in 0..LANES {
                let better = xv[l] > 0.0 && vv[l] > 0.0 && xv[l] * xv[l] > best[l] * vv[l];
                let fitted = xv[l] / vv[l];
                scale[l] = if better { fitted } else { scale[l] };
                weight[l] = if better { vv[l] } else { weight[l] };
                best[l] = if better { fitted * xv[l] } else { best[l] };
            }
        }
        (scale, weight)
    }

    /// `d` and the `s` of the sub-blocks of a block.
    #[inline(always)]
    fn scales(&mut self, x: &[Lanes], w: &[Lanes]) -> Scales {
        let sub = self.book.sub;
        let mut scales = [all(0.0); BLOCK / 16];
        let mut weights = [all(0.0); BLOCK / 16];
        let count = BLOCK / sub;
        for (j, (x, w)) in x.chunks_exact(sub).zip(w.chunks_exact(sub)).enumerate() {
            (scales[j], weights[j]) = self.fit(x, w);
        }
        let (scales, weights) = (&scales[..count], &weights[..count]);
        let peak = scales.iter().fold(all(0.0), |top, s| map2(&top, s, |top, s| if s > top { s } else { top }));
        let top = f32::from(self.book.top);
        let (mut best, mut d) = (all(f32::INFINITY), all(0.0));
        let mut attempt = |trial: &Lanes| {
            let inverse = reciprocals(trial);
            let (mut sq, mut qq, mut ss) = (all(0.0), all(0.0), all(0.0));
            for (s, w) in scales.iter().zip(weights) {
                for l in 0..LANES {
                    let q = 2.0 * integer(s[l] * inverse[l], top) + 1.0;
                    sq[l] += w[l] * (s[l] * q);
                    qq[l] += w[l] * (q * q);
                    ss[l] += w[l] * (s[l] * s[l]);
                }
            }
            for l in 0..LANES {
                let fitted = if qq[l] > 0.0 { sq[l] / qq[l] } else { trial[l] };
                let error = ss[l] - fitted * sq[l];
                let better = error < best[l];
                best[l] = if better { error } else { best[l] };
                d[l] = if better { fitted } else { d[l] };
            }
            d
        };
        // The largest scale may be any of the larger integers.
        let mut last = all(0.0);
        for s in self.book.top / 2..=self.book.top {
            last = attempt(&peak.map(|peak| peak / f32::from(2 * s + 1)));
        }
        last = attempt(&last);
        let unit = self.book.unit;
        let d = last.map(|d| f16_to_f32(f32_to_f16((d / unit).clamp(0.0, 65504.0))));
        let inverse = reciprocals(&d.map(|d| d * unit));
        let mut all_s = [all(0.0); BLOCK / 16];
        for (s, scale) in all_s.iter_mut().zip(scales) {
            *s = map2(scale, &inverse, |scale, inverse| integer(scale * inverse, top));
        }
        Scales { d, s: all_s }
    }

    /// The best of the `s` of sub-block `j` and its neighbours, with its entries.
    #[inline(always)]
    fn choose(&mut self, x: &[Lanes], w: &[Lanes], scales: &mut Scales, j: usize) -> Chosen<SUB> {
        let (unit, top) = (self.book.unit, f32::from(self.book.top));
        let (mut best, mut best_s, mut chosen) = (all(f32::INFINITY), scales.s[j], Chosen::NONE);
        for step in [0.0, -1.0, 1.0] {
            let s = scales.s[j].map(|s| (s + step).clamp(0.0, top));
            let (trial, cost) = self.sub(x, w, &scale_of(&scales.d, unit, &s));
            let better = core::array::from_fn(|l| cost[l] < best[l]);
            best = select(&better, &cost, &best);
            best_s = select(&better, &s, &best_s);
            chosen.take(&trial, &better);
        }
        scales.s[j] = best_s;
        chosen
    }
}

impl<const N: usize> Chosen<N> {
    /// Sets the weights of the unit that begins at `at`.
    fn place(&mut self, book: &Codebook, at: usize, unit: &Chosen<UNIT>) {
        let count = book.unit_weights();
        self.values[at..at + count].copy_from_slice(&unit.values[..count]);
        for e in 0..count / book.width {
            self.numbers[at / book.width + e] = unit.numbers[e];
        }
        let mask = if count == 8 { 0xff } else { 0x0f } << (at % 8);
        for (own, unit) in self.signs[at / 8].iter_mut().zip(unit.signs[0]) {
            *own = *own & !mask | unit << (at % 8) & mask;
        }
    }
}

/// The scales of a block of sixteen rows.
struct Scales {
    d: Lanes,
    /// Integers, as floats.
    s: [Lanes; BLOCK / 16],
}

/// `s` of a scale that is so many times `d`.
#[inline(always)]
fn integer(ratio: f32, top: f32) -> f32 {
    let s = 0.5 * (ratio - 1.0);
    let s = if s > 0.0 { s } else { 0.0 };
    nearest(if s < top { s } else { top })
}

/// The scale of a sub-block.
#[inline(always)]
fn scale_of(d: &Lanes, unit: f32, s: &Lanes) -> Lanes {
    map2(d, s, |d, s| d * unit * (2.0 * s + 1.0))
}

/// The sums of `w x v` and `w v^2`.
#[inline(always)]
fn sums(x: &[Lanes], w: &[Lanes], values: &[Lanes]) -> (Lanes, Lanes) {
    let (mut xv, mut vv) = (all(0.0), all(0.0));
    for ((x, w), v) in x.iter().zip(w).zip(values) {
        for l in 0..LANES {
            let wv = w[l] * v[l];
            xv[l] += wv * x[l];
            vv[l] += wv * v[l];
        }
    }
    (xv, vv)
}

/// Where a block of each lane goes.
#[derive(Clone, Copy)]
struct Place {
    row_bytes: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Number of the block in its row.
    block: usize,
}

/// Packs a block of the first lanes.
fn store(book: &Codebook, scales: &Scales, chosen: &[Chosen<SUB>], rows: usize, place: Place, out: &mut [u8]) {
    let (entries, eights) = (book.sub / book.width, book.sub / 8);
    for l in 0..rows {
        let mut parts = CodebookParts { d: scales.d[l], ..CodebookParts::default() };
        for (j, chosen) in chosen.iter().enumerate() {
            parts.scales[j] = scales.s[j][l] as u8;
            for e in 0..entries {
                parts.numbers[j * entries + e] = chosen.numbers[e][l];
            }
            for e in 0..eights {
                parts.signs[j * eights + e] = chosen.signs[e][l];
            }
        }
        let at = l * place.row_bytes + place.block * place.bytes;
        (book.assemble)(&parts, &mut out[at..at + place.bytes]);
    }
}

/// Up to sixteen rows, each block alone.
pub(super) struct SearchRows<'a> {
    pub(super) book: &'a Codebook,
    pub(super) k: usize,
    pub(super) row_bytes: usize,
    pub(super) importance: Option<&'a [f32]>,
    pub(super) rows: &'a [f32],
    pub(super) out: &'a mut [u8],
}

impl Kernel for SearchRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        let SearchRows { book, k, row_bytes, importance, rows, out } = self;
        let mut coder = Coder::new(book);
        let (mut x, mut w) = ([all(0.0); BLOCK], [all(0.0); BLOCK]);
        let (sub, count) = (book.sub, BLOCK / book.sub);
        for start in (0..k).step_by(BLOCK) {
            fill(rows, k, start, importance, &mut x, &mut w);
            let mut scales = coder.scales(&x, &w);
            let mut chosen = [Chosen::<SUB>::NONE; BLOCK / 16];
            for (j, (x, w)) in x.chunks_exact(sub).zip(w.chunks_exact(sub)).enumerate() {
                chosen[j] = coder.choose(x, w, &mut scales, j);
            }
            // The best `d` for what was chosen.
            let (mut xv, mut vv) = (all(0.0), all(0.0));
            for (j, (x, w)) in x.chunks_exact(sub).zip(w.chunks_exact(sub)).enumerate() {
                let factor = scales.s[j].map(|s| book.unit * (2.0 * s + 1.0));
                let (a, b) = sums(x, w, &chosen[j].values);
                for l in 0..LANES {
                    xv[l] += factor[l] * a[l];
                    vv[l] += factor[l] * (factor[l] * b[l]);
                }
            }
            for l in 0..LANES {
                let fitted = f16_to_f32(f32_to_f16((xv[l] / vv[l]).clamp(0.0, 65504.0)));
                scales.d[l] = if xv[l] > 0.0 && vv[l] > 0.0 { fitted } else { scales.d[l] };
            }
            let place = Place { row_bytes, bytes: row_bytes / (k / BLOCK), block: start / BLOCK };
            store(book, &scales, &chosen[..count], rows.len() / k, place, out);
        }
    }
}

/// Up to sixteen rows with feedback.
pub(super) struct FeedbackRows<'a> {
    pub(super) book: &'a Codebook,
    pub(super) feedback: Feedback<'a>,
    pub(super) row_bytes: usize,
    /// The columns as they are by now.
    pub(super) w: &'a mut [Lanes],
    /// `e` of the columns that are rounded.
    pub(super) errors: &'a mut [Lanes],
    pub(super) n: usize,
    pub(super) out: &'a mut [u8],
}

impl Kernel for FeedbackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        let FeedbackRows { book, feedback: Feedback { k, factor }, row_bytes, w, errors, n, out } = self;
        let mut coder = Coder::new(book);
        let (sub, count, step) = (book.sub, BLOCK / book.sub, book.unit_weights());
        for start in (0..k).step_by(BLOCK) {
            advance(w, errors, factor, k, 0..start, start..start + BLOCK);
            let mut metrics = [[[0.0f32; UNIT]; UNIT]; BLOCK / 4];
            let mut weights = [all(0.0); BLOCK];
            for (u, metric) in metrics[..BLOCK / step].iter_mut().enumerate() {
                *metric = metric_of(factor, k, start + u * step, step);
                for i in 0..step {
                    weights[u * step + i] = all(metric[i][i]);
                }
            }
            let mut scales = coder.scales(&w[start..start + BLOCK], &weights);
            let mut chosen = [Chosen::<SUB>::NONE; BLOCK / 16];
            for j in 0..count {
                let columns = start + j * sub..start + (j + 1) * sub;
                if j > 0 {
                    advance(w, errors, factor, k, start..columns.start, columns.clone());
                }
                let of_sub = &weights[j * sub..(j + 1) * sub];
                chosen[j] = coder.choose(&w[columns.clone()], of_sub, &mut scales, j);
                let scale = scale_of(&scales.d, book.unit, &scales.s[j]);
                let mut shift = match book.signs {
                    EntrySigns::Shift(_) => chosen[j].signs[0].map(|signs| signs != 0),
                    _ => [false; LANES],
                };
                for at in (0..sub).step_by(step) {
                    let unit = columns.start + at..columns.start + at + step;
                    if at > 0 {
                        advance(w, errors, factor, k, columns.start..unit.start, unit.clone());
                    }
                    let x = &w[unit.clone()];
                    let weights = &of_sub[at..at + step];
                    if let EntrySigns::Shift(UNIT) = book.signs {
                        shift = coder.shift(x, weights, &scale);
                    }
                    let metric = &metrics[(j * sub + at) / step];
                    let best = coder.together(x, weights, &scale, &shift, metric);
                    chosen[j].place(book, at, &best);
                    // e_i = (r_i - sum of e_j U_ji) / U_ii.
                    for i in 0..step {
                        let own = (unit.start + i) * k;
                        let mut rest: Lanes = core::array::from_fn(|l| x[i][l] - scale[l] * best.values[i][l]);
                        for before in 0..i {
                            let u = factor[own + unit.start + before];
                            for l in 0..LANES {
                                rest[l] -= errors[unit.start + before][l] * u;
                            }
                        }
                        let inverse = 1.0 / factor[own + unit.start + i];
                        errors[unit.start + i] = rest.map(|rest| rest * inverse);
                    }
                }
            }
            let place = Place { row_bytes, bytes: row_bytes / (k / BLOCK), block: start / BLOCK };
            store(book, &scales, &chosen[..count], n, place, out);
        }
    }
}

impl Coder<'_> {
    /// Entries of a unit of which errors cost `r M r^T`.
    #[inline(always)]
    fn together(
        &mut self,
        x: &[Lanes],
        weights: &[Lanes],
        scale: &Lanes,
        shift: &[bool; LANES],
        metric: &[[f32; UNIT]; UNIT],
    ) -> Chosen<UNIT> {
        let mut best = self.unit(x, weights, scale, shift);
        let (mut moved, mut least) = shifted(x, scale, &best, metric);
        for _ in 0..AGAIN {
            let trial = self.unit(&moved[..x.len()], weights, scale, shift);
            let (further, cost) = shifted(x, scale, &trial, metric);
            let better = core::array::from_fn(|l| cost[l] < least[l]);
            least = select(&better, &cost, &least);
            best.take(&trial, &better);
            for (moved, further) in moved.iter_mut().zip(&further) {
                *moved = select(&better, further, moved);
            }
        }
        best
    }
}

/// Where the errors of the other columns would have each column, and `r M r^T`.
#[inline(always)]
fn shifted(x: &[Lanes], scale: &Lanes, chosen: &Chosen<UNIT>, metric: &[[f32; UNIT]; UNIT]) -> ([Lanes; UNIT], Lanes) {
    let mut r = [all(0.0); UNIT];
    for (i, x) in x.iter().enumerate() {
        r[i] = core::array::from_fn(|l| x[l] - scale[l] * chosen.values[i][l]);
    }
    let (mut moved, mut cost) = ([all(0.0); UNIT], all(0.0));
    for (i, x) in x.iter().enumerate() {
        let inverse = 1.0 / metric[i][i];
        let mut others = all(0.0);
        for j in (0..chosen.values.len()).filter(|j| *j != i) {
            let m = metric[i][j];
            for l in 0..LANES {
                others[l] += m * r[j][l];
            }
        }
        for l in 0..LANES {
            cost[l] += r[i][l] * (metric[i][i] * r[i][l] + others[l]);
            moved[i][l] = x[l] + others[l] * inverse;
        }
    }
    (moved, cost)
}

/// `U^-1 U^-T` of the columns from `first` on.
fn metric_of(factor: &[f32], k: usize, first: usize, count: usize) -> [[f32; UNIT]; UNIT] {
    let u = |i: usize, j: usize| factor[(first + j) * k + first + i];
    // The columns of the inverse of an upper triangular matrix, from the diagonal up.
    let mut inverse = [[0.0f32; UNIT]; UNIT];
    for (j, column) in inverse.iter_mut().enumerate().take(count) {
        column[j] = 1.0 / u(j, j);
        for i in (0..j).rev() {
            let sum = (i + 1..=j).fold(0.0, |sum, m| sum + u(i, m) * column[m]);
            column[i] = -sum / u(i, i);
        }
    }
    let mut metric = [[0.0; UNIT]; UNIT];
    for i in 0..count {
        for j in 0..count {
            metric[i][j] = (i.max(j)..count).fold(0.0, |sum, m| sum + inverse[m][i] * inverse[m][j]);
        }
    }
    metric
}
