//! The gated short convolution of LFM 2: `out(c * convolution(b * x))`, where one matrix gives `b`, `c` and `x`.

use fastq_kernels::elementwise::mul;
use fastq_kernels::recurrent::{arrange_taps, convolve};

use super::convolution::Convolution;
use crate::Result;
use crate::model::buffers::Buffers;
use crate::model::forward::Pass;
use crate::model::keys::Keys;
use crate::model::regions::Product;
use crate::model::tensors::Role;
use crate::model::weights::{Linear, Loader};
use crate::pool::Disjoint;

/// A short convolution.
#[derive(Clone, Debug)]
pub struct ShortConv {
    /// Over the channels of the hidden state.
    pub convolution: Convolution,
}

impl ShortConv {
    /// Reads the key `shortconv.l_cache`.
    pub(in crate::model) fn read(keys: Keys<'_>, width: usize) -> Result<ShortConv> {
        Ok(ShortConv { convolution: Convolution::read(keys, "shortconv.l_cache", width)? })
    }

    /// Values of `b`, `c` and `x` of a position.
    pub fn inputs(&self) -> usize {
        3 * self.convolution.channels
    }
}

/// Its weights.
#[derive(Clone, Debug)]
pub struct ShortConvWeights {
    /// Gives `b`, `c` and `x`.
    pub input: Linear,
    /// The filters, arranged for [`convolve`].
    pub filters: Vec<f32>,
    /// Makes the output.
    pub output: Linear,
}

impl Loader<'_> {
    pub(in crate::model) fn short_conv(&mut self, spec: &ShortConv, layer: usize) -> Result<ShortConvWeights> {
        Ok(ShortConvWeights {
            input: self.need_linear(Role::ShortConvInput, None, layer)?,
            filters: arrange_taps(&self.need_vector(Role::ShortConvTaps, layer)?, spec.convolution.taps),
            output: self.need_linear(Role::ShortConvOutput, None, layer)?,
        })
    }
}

impl Pass<'_, '_> {
    /// From the records of all rows to [`Buffers::a`].
    pub(in crate::model) fn short_conv(
        &mut self,
        buffers: &mut Buffers,
        spec: &ShortConv,
        weights: &ShortConvWeights,
    ) -> Result<()> {
        let (file, cpu, n) = (self.context.file, self.context.cpu, self.rows.len());
        let (convolution, inputs) = (&spec.convolution, spec.inputs());
        let Buffers { a, mixed, records, segments, workers, .. } = buffers;
        self.regions.products(&mut [Product::new(file, &weights.input, records, 0..n, mixed)], workers)?;
        let (mixed, a) = (&**mixed, Disjoint::new(a));
        let (parts, width) = (convolution.parts(), convolution.channels);
        self.each_carried(segments, parts, inputs / parts, |rows, sequence, part, _| {
            let part = convolution.part(part);
            let filters = &weights.filters[part.filters];
            // SAFETY: the channels of a sequence belong to one piece.
            let state = unsafe { sequence.state(part.state) };
            for row in rows {
                let third = |index: usize| {
                    let start = row * inputs + index * width;
                    &mixed[start + part.channels.start..start + part.channels.end]
                };
                // SAFETY: as above.
                let out = unsafe { a.slice(row * width + part.channels.start..row * width + part.channels.end) };
                out.copy_from_slice(third(2));
                mul(cpu, out, third(0));
                convolve(cpu, filters, state, out);
                mul(cpu, out, third(1));
            }
        })
    }
}
