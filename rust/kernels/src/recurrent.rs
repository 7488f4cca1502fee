//! Steps of layers that carry a state from token to token instead of reading a cache: causal convolutions and the delta rule.
//!
//! A step is one token, so what a text gives does not depend on how it is cut into chunks. Parallel width comes from channels,
//! heads and sequences. States and filters are stored in blocks of [`LANES`] channels, so that a part of the channels is one
//! piece of memory; the lanes that fill the last block up may hold anything.
//!
//! # The numbers
//!
//! * A convolution is one fma chain over the taps from 0, the oldest input first.
//! * The delta rule, in value `j` of a head: `r = chain over i of fma(key[i], decay * S[i][j], r)` from 0;
//!   `e = (value[j] - r) * beta`; `S[i][j] = fma(key[i], e, decay * S[i][j])`; the output is
//!   `chain over i of fma(query[i], S[i][j], out)` from 0.

use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

/// Length of the state of a convolution of `channels` with `taps` taps: the inputs of the last `taps - 1` tokens.
pub const fn convolution_state_len(channels: usize, taps: usize) -> usize {
    channels.next_multiple_of(LANES).saturating_mul(taps - 1)
}

/// Length of a part of the state of the delta rule: a matrix of `keys` rows and `values` columns.
pub const fn delta_state_len(keys: usize, values: usize) -> usize {
    values.next_multiple_of(LANES).saturating_mul(keys)
}

/// The filters of a convolution `(channels, taps)`, the present token's tap last, in the order that [`convolve`] wants.
///
/// # Panics
/// When the filters are not whole, or there are no taps.
pub fn arrange_taps(filters: &[f32], taps: usize) -> Vec<f32> {
    assert!(taps > 0 && filters.len().is_multiple_of(taps), "{} values are not filters of {taps} taps", filters.len());
    let mut out = vec![0.0; (filters.len() / taps).next_multiple_of(LANES) * taps];
    for (channel, filter) in filters.chunks_exact(taps).enumerate() {
        for (tap, value) in filter.iter().enumerate() {
            out[(channel / LANES * taps + tap) * LANES + channel % LANES] = *value;
        }
    }
    out
}

struct Convolve<'a> {
    taps: &'a [f32],
    state: &'a mut [f32],
    x: &'a mut [f32],
}

impl Kernel for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let blocks = self.x.len().div_ceil(LANES);
        let (taps, _) = self.taps.as_chunks::<LANES>();
        let (state, _) = self.state.as_chunks_mut::<LANES>();
        let carried = state.len() / blocks;
        for (block, x) in self.x.chunks_mut(LANES).enumerate() {
            let taps = &taps[block * (carried + 1)..][..carried + 1];
            let state = &mut state[block * carried..][..carried];
            let now = isa.load_first(x, 0.0);
            let mut sum = isa.splat(0.0);
            for at in 0..carried {
                sum = isa.fma(isa.load(&taps[at]), isa.load(&state[at]), sum);
                let next = if at + 1 < carried { isa.load(&state[at + 1]) } else { now };
                isa.store(next, &mut state[at]);
            }
            isa.store_first(isa.fma(isa.load(&taps[carried]), now, sum), x);
        }
    }
}

/// `x = filters * (state, x)` in every channel, one token; the state moves on. `taps` come from [`arrange_taps`], the state has
/// [`convolution_state_len`] values. Part of the channels, from a multiple of [`LANES`] on, takes its parts of both.
///
/// # Panics
/// When the lengths do not fit together.
pub fn convolve(cpu: Cpu, taps: &[f32], state: &mut [f32], x: &mut [f32]) {
    let lanes = x.len().next_multiple_of(LANES);
    if lanes == 0 {
        return;
    }
    assert!(taps.len().is_multiple_of(lanes), "{} taps for {} channels", taps.len(), x.len());
    assert_eq!(state.len() + lanes, taps.len(), "the state must have a tap less than the filters");
    dispatch_floats(cpu, Convolve { taps, state, x });
}

/// One token of the delta rule for a head, or for part of its values.
#[derive(Clone, Copy, Debug)]
pub struct DeltaStep<'a> {
    /// The key.
    pub key: &'a [f32],
    /// The query, of the length of the key.
    pub query: &'a [f32],
    /// The value, or a part of it.
    pub value: &'a [f32],
    /// Factor of the state.
    pub decay: f32,
    /// How much of the error is corrected.
    pub beta: f32,
}

/// Blocks of values that are computed at once: chains enough to hide the latency of a sum.
const BLOCKS: usize = 4;

struct DeltaRule<'a> {
    step: DeltaStep<'a>,
    state: &'a mut [f32],
    out: &'a mut [f32],
}

impl DeltaRule<'_> {
    /// The blocks of values from `first` on.
    #[inline(always)]
    fn blocks<I: Isa, const N: usize>(&mut self, isa: I, first: usize) {
        let DeltaStep { key, query, value, decay, beta } = self.step;
        let rows = key.len();
        let (state, _) = self.state[first * rows * LANES..][..N * rows * LANES].as_chunks_mut::<LANES>();
        let (decay, beta) = (isa.splat(decay), isa.splat(beta));
        let mut error = [isa.splat(0.0); N];
        for (row, &key) in key.iter().enumerate() {
            let key = isa.splat(key);
            for (block, error) in error.iter_mut().enumerate() {
                *error = isa.fma(key, isa.mul(decay, isa.load(&state[block * rows + row])), *error);
            }
        }
        let part = |block: usize| (first + block) * LANES..value.len().min((first + block + 1) * LANES);
        for (block, error) in error.iter_mut().enumerate() {
            let value = isa.load_first(&value[part(block)], 0.0);
            *error = isa.mul(isa.sub(value, *error), beta);
        }
        let mut out = [isa.splat(0.0); N];
        for (row, (&key, &query)) in key.iter().zip(query).enumerate() {
            let (key, query) = (isa.splat(key), isa.splat(query));
            for (block, out) in out.iter_mut().enumerate() {
                let cell = &mut state[block * rows + row];
                let new = isa.fma(key, error[block], isa.mul(decay, isa.load(cell)));
                isa.store(new, cell);
                *out = isa.fma(query, new, *out);
            }
        }
        for (block, sum) in out.into_iter().enumerate() {
            isa.store_first(sum, &mut self.out[part(block)]);
        }
    }
}

impl Kernel for DeltaRule<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let blocks = self.out.len().div_ceil(LANES);
        let whole = blocks / BLOCKS * BLOCKS;
        for first in (0..whole).step_by(BLOCKS) {
            self.blocks::<I, BLOCKS>(isa, first);
        }
        for first in whole..blocks {
            self.blocks::<I, 1>(isa, first);
        }
    }
}

/// The gated delta rule (arXiv 2412.06464), one token: the state, a matrix from keys to values, decays; what it says of the key is
/// corrected towards the value; `out` is what it then says of the query. The state has [`delta_state_len`] values.
///
/// # Panics
/// When the lengths do not fit together.
pub fn delta_rule(cpu: Cpu, step: DeltaStep<'_>, state: &mut [f32], out: &mut [f32]) {
    assert_eq!(step.key.len(), step.query.len(), "keys and queries must have the same length");
    assert_eq!(step.value.len(), out.len(), "the output must have the length of the value");
    assert_eq!(state.len(), delta_state_len(step.key.len(), out.len()), "values of the state");
    dispatch_floats(cpu, DeltaRule { step, state, out });
}
