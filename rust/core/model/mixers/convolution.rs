//! A causal convolution with a few taps in every channel, whose last inputs are the state.

use std::ops::Range;

use fastq_kernels::recurrent::convolution_state_len;

use crate::Result;
use crate::model::keys::Keys;

/// Channels that a thread takes at once; a multiple of the lanes of the kernels.
const PART: usize = 128;
const MAX_TAPS: usize = 64;

/// The shape of a convolution.
#[derive(Clone, Debug)]
pub struct Convolution {
    /// Channels.
    pub channels: usize,
    /// Positions that an output sees.
    pub taps: usize,
    /// Where its state begins in that of a sequence.
    pub state_start: usize,
}

/// Some channels, and where their filters and states are.
pub(super) struct Part {
    pub(super) channels: Range<usize>,
    pub(super) filters: Range<usize>,
    pub(super) state: Range<usize>,
}

impl Convolution {
    /// A convolution whose number of taps is the key `taps`.
    pub(super) fn read(keys: Keys<'_>, taps: &str, channels: usize) -> Result<Convolution> {
        Ok(Convolution { channels, taps: keys.count(taps, 2..=MAX_TAPS, None)?, state_start: 0 })
    }

    /// Values of its state.
    pub fn state_len(&self) -> usize {
        convolution_state_len(self.channels, self.taps)
    }

    /// Parts that threads share.
    pub(super) fn parts(&self) -> usize {
        self.channels.div_ceil(PART)
    }

    /// One of them.
    pub(super) fn part(&self, index: usize) -> Part {
        let channels = index * PART..self.channels.min((index + 1) * PART);
        let before = convolution_state_len(channels.start, self.taps);
        let own = convolution_state_len(channels.len(), self.taps);
        let per_tap = |values: usize| values / (self.taps - 1) * self.taps;
        let start = self.state_start + before;
        Part { channels, filters: per_tap(before)..per_tap(before + own), state: start..start + own }
    }
}
