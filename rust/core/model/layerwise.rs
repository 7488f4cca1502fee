//! Layer by layer: the hidden states of many texts are advanced by one layer after the other, instead of one text by all layers.
//!
//! So what a layer does to many texts can be looked at, and undone and done again with other weights, while nothing but their hidden
//! states is in memory. A text has the same bits as in [`Model::forward`], since rows depend on their own text only.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::batch::{BatchItem, Logits, Output, plan_chunk};
use super::buffers::Buffers;
use super::forward::{Context, Pass, Row, rows};
use super::logits::no_logits;
use super::observe::{Observer, Observing};
use super::parts::Start;
use super::regions::{Records, Regions};
use super::{Engine, Inner, Model, Sequence};
use crate::memory::human;
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Result};

/// The most texts that are computed at once; each has pages of the cache.
const MOST_TEXTS: usize = 32;

/// The hidden states of some texts, before a layer.
#[derive(Clone, Debug)]
pub struct LayerStates {
    texts: Arc<[Vec<u32>]>,
    /// The first row of each text, and the number of rows.
    starts: Arc<[usize]>,
    values: Vec<f32>,
    width: usize,
    /// The layer that comes next; none once a step failed halfway.
    next: Option<usize>,
}

impl LayerStates {
    /// The texts.
    pub fn texts(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Where the rows of a text are.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn rows_of(&self, text: usize) -> Range<usize> {
        self.starts[text]..self.starts[text + 1]
    }

    /// Number of rows: the tokens of all texts.
    pub fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The states `(rows, width)`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The states, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The layer that comes next, from 0; `None` after a step that failed, which leaves the states of no layer.
    pub fn layer(&self) -> Option<usize> {
        self.next
    }
}

/// Who waits for rows of a pass.
struct Rows<'s> {
    /// The states of the rows of the chunk, `(rows, width)`.
    values: &'s mut [f32],
}

impl Model {
    /// The hidden states of texts before the first layer.
    ///
    /// # Errors
    /// [`Error::Argument`] for a text without tokens or a token outside the vocabulary; [`Error::ContextOverflow`] for one that is
    /// longer than the context; [`Error::Memory`], [`Error::ModelFile`] and [`Error::Cancelled`].
    pub fn embed_states(&self, texts: &[Vec<u32>], interrupt: &dyn Interrupt) -> Result<LayerStates> {
        let inner = &*self.inner;
        let (mut sequence, mut out) = (self.new_sequence(), Vec::new());
        let mut starts = vec![0];
        let mut len = 0;
        for tokens in texts {
            inner.check(&BatchItem { sequence: &mut sequence, tokens, logits: Logits::None, out: &mut out })?;
            len += tokens.len();
            starts.push(len);
        }
        let width = inner.spec.width;
        let mut values = Vec::new();
        let count = len.saturating_mul(width);
        values.try_reserve_exact(count).map_err(|_| {
            let bytes = human((count as u64).saturating_mul(4));
            Error::Memory(format!("the system refused {bytes} for the hidden states of {len} tokens; use less text"))
        })?;
        values.resize(count, 0.0);
        let (texts, starts) = (texts.into(), starts.into());
        let mut states = LayerStates { texts, starts, values, width, next: None };
        inner.over_texts(&mut states, None, interrupt, |pass, buffers, rows| {
            pass.embed(buffers, Start::none(&pass.context))?;
            pass.check(buffers, None)?;
            rows.values.copy_from_slice(&buffers.x[..rows.values.len()]);
            Ok(())
        })?;
        states.next = Some(0);
        Ok(states)
    }

    /// Advances the states by one layer; with an observer, which is shown the inputs of its matrices. The states may be those of
    /// another model of the same shape, as of one [with other weights](Model::with_replaced).
    ///
    /// # Errors
    /// [`Error::Argument`] when another layer comes next, or the model has another shape; [`Error::NotFinite`]; [`Error::Memory`],
    /// [`Error::ModelFile`] and [`Error::Cancelled`]; the observer's. Then [`LayerStates::layer`] is `None`.
    pub fn advance(
        &self,
        states: &mut LayerStates,
        layer: usize,
        observer: Option<&mut dyn Observer>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        let inner = &*self.inner;
        let layers = inner.spec.layers.len();
        inner.check_states(states, layer)?;
        let (Some(spec), Some(weights)) = (inner.spec.layers.get(layer), inner.weights.layers.get(layer)) else {
            return Err(Error::Argument(format!("layer must be below {layers}, found {layer}")));
        };
        states.next = None;
        inner.over_texts(states, observer, interrupt, |pass, buffers, rows| {
            let context = pass.context;
            pass.resume(buffers, rows.values, Start::layer(&context, layer))?;
            pass.mixer_part(buffers, spec, weights, false)?;
            pass.feed_forward_part(buffers, &spec.feed_forward, weights, Start::none(&context))?;
            pass.check(buffers, Some(layer))?;
            rows.values.copy_from_slice(&buffers.x[..rows.values.len()]);
            Ok(())
        })?;
        states.next = Some(layer + 1);
        Ok(())
    }

    /// Logits `(rows, vocabulary)` of some rows of states after the last layer, into `out`; with an observer, which is shown the
    /// input of the output matrix.
    ///
    /// # Errors
    /// As [`Model::advance`]; [`Error::Argument`] for a row that is not there, or a model without logits.
    pub fn logits_of(
        &self,
        states: &LayerStates,
        rows: Range<usize>,
        out: &mut Vec<f32>,
        observer: Option<&mut dyn Observer>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        out.clear();
        let result = self.inner.logits_of(states, rows, out, observer, interrupt);
        if result.is_err() {
            out.clear();
        }
        result
    }
}

impl Inner {
    fn check_states(&self, states: &LayerStates, layer: usize) -> Result<()> {
        if states.width != self.spec.width {
            let (width, found) = (self.spec.width, states.width);
            return Err(Error::Argument(format!("the states must have rows of {width} values, found {found}")));
        }
        match states.next {
            Some(next) if next == layer => Ok(()),
            Some(next) => Err(Error::Argument(format!("the states are before layer {next}, not before {layer}"))),
            None => Err(Error::Argument("the states are useless: a step failed halfway".into())),
        }
    }

    fn context<'a>(&'a self, output: Output, observed: bool, interrupt: &'a dyn Interrupt) -> Context<'a> {
        Context {
            file: &self.file,
            spec: &self.spec,
            weights: &self.weights,
            groups: self.cache.groups(),
            cpu: self.cpu,
            interrupt,
            output,
            check: true,
            observed,
        }
    }

    /// Calls `work` for chunk after chunk of the texts, as many at once as fill one. The cache holds what `work` has put into it of the
    /// same texts, and nothing else.
    fn over_texts(
        &self,
        states: &mut LayerStates,
        observer: Option<&mut dyn Observer>,
        interrupt: &dyn Interrupt,
        mut work: impl FnMut(&mut Pass<'_, '_>, &mut Buffers, Rows<'_>) -> Result<()>,
    ) -> Result<()> {
        self.file.check_unchanged()?;
        let _turn = self.turns.take(interrupt)?;
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let Engine { pool, buffers } = &mut *engine;
        let context = self.context(Output::Hidden, observer.is_some(), interrupt);
        if context.observed {
            buffers.keep_floats(&self.weights)?;
        }
        let mut shown = Vec::new();
        let mut observing = observer.map(|observer| Observing { observer, rows: &mut shown });
        let mut sequences: Vec<Sequence> = Vec::new();
        let texts = Arc::clone(&states.texts);
        let mut rest = &texts[..];
        let mut values = &mut states.values[..];
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |text: &&Vec<u32>| {
                tokens += text.len();
                tokens <= buffers.chunk
            };
            let (now, later) = rest.split_at(rest.iter().take(MOST_TEXTS).take_while(fits).count().max(1));
            rest = later;
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            while sequences.len() < now.len() {
                sequences.push(self.cache.sequence());
            }
            let len = now.iter().map(Vec::len).sum::<usize>() * states.width;
            let own;
            (own, values) = values.split_at_mut(len);
            for (sequence, tokens) in sequences.iter_mut().zip(now) {
                // Room from before the transaction outlives it, so that the next texts need none.
                sequence.prepare(tokens.len().min(buffers.chunk))?;
                sequence.begin();
            }
            let result = self.chunks_of(context, pool, buffers, now, &mut sequences, own, &mut observing, &mut work);
            sequences.iter_mut().for_each(Sequence::rollback);
            result?;
        }
        Ok(())
    }

    /// [`Inner::over_texts`] for texts that are in the cache together.
    #[allow(clippy::too_many_arguments, reason = "the parts of one loop")]
    fn chunks_of<'o>(
        &self,
        context: Context<'_>,
        pool: &mut Pool,
        buffers: &mut Buffers,
        texts: &[Vec<u32>],
        sequences: &mut [Sequence],
        mut values: &mut [f32],
        observing: &mut Option<Observing<'o>>,
        work: &mut impl FnMut(&mut Pass<'_, '_>, &mut Buffers, Rows<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut outs: Vec<Vec<f32>> = vec![Vec::new(); texts.len()];
        let mut batch: Vec<BatchItem<'_>> = texts
            .iter()
            .zip(sequences)
            .zip(&mut outs)
            .map(|((tokens, sequence), out)| BatchItem { sequence, tokens, logits: Logits::All, out })
            .collect();
        let mut next = (0, 0);
        while next.0 < batch.len() {
            plan_chunk(&batch, &mut next, buffers.chunk, !self.spec.causal, &mut buffers.segments);
            for segment in &buffers.segments {
                batch[segment.item].sequence.prepare(segment.tokens.len())?;
            }
            let rows = rows(&self.spec, buffers, &batch);
            let own;
            (own, values) = values.split_at_mut(rows.len() * self.spec.width);
            let regions = Regions { pool: &mut *pool, interrupt: context.interrupt, cpu: context.cpu };
            let observing = observing.as_mut().map(Observing::again);
            let mut pass = Pass { context, regions, rows, batch: &mut batch, observing };
            let result = work(&mut pass, buffers, Rows { values: own });
            buffers.rows = pass.rows;
            result?;
            for segment in &buffers.segments {
                batch[segment.item].sequence.advance(segment.tokens.len());
            }
        }
        Ok(())
    }

    fn logits_of(
        &self,
        states: &LayerStates,
        rows: Range<usize>,
        out: &mut Vec<f32>,
        observer: Option<&mut dyn Observer>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        self.check_states(states, self.spec.layers.len())?;
        if self.weights.output.is_none() {
            return Err(no_logits(&self.spec));
        }
        if rows.start > rows.end || rows.end > states.rows() {
            let count = states.rows();
            return Err(Error::Argument(format!("rows must lie within the {count} of the states, found {rows:?}")));
        }
        self.file.check_unchanged()?;
        let _turn = self.turns.take(interrupt)?;
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let Engine { pool, buffers } = &mut *engine;
        let context = self.context(Output::Logits, observer.is_some(), interrupt);
        if context.observed {
            buffers.keep_floats(&self.weights)?;
        }
        let mut shown = Vec::new();
        let mut observing = observer.map(|observer| Observing { observer, rows: &mut shown });
        let (mut sequence, tokens) = (self.cache.sequence(), vec![0; rows.len()]);
        let mut item = BatchItem { sequence: &mut sequence, tokens: &tokens, logits: Logits::All, out };
        item.reserve(self.spec.vocabulary)?;
        let mut batch = [item];
        for start in (0..rows.len()).step_by(buffers.chunk) {
            let part = start..rows.len().min(start + buffers.chunk);
            let mut list = std::mem::take(&mut buffers.rows);
            list.clear();
            // Positions matter to nothing any more, but to messages.
            list.extend(part.clone().enumerate().map(|(index, row)| Row {
                item: 0,
                position: rows.start + row,
                end: rows.start + row + 1,
                index,
                token: 0,
                logits: Some(row),
            }));
            let regions = Regions { pool: &mut *pool, interrupt, cpu: self.cpu };
            let observing = observing.as_mut().map(Observing::again);
            let mut pass = Pass { context, regions, rows: list, batch: &mut batch, observing };
            let width = self.spec.width;
            let values = &states.values[(rows.start + part.start) * width..(rows.start + part.end) * width];
            let start = Start::layer(&context, self.spec.layers.len());
            let result = pass.resume(buffers, values, start).and_then(|()| pass.output(buffers));
            buffers.rows = pass.rows;
            result?;
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    /// Goes on from hidden states: they, their records for the next matrices, and the rope tables of the rows.
    fn resume(&mut self, buffers: &mut Buffers, states: &[f32], start: Start<'_>) -> Result<()> {
        let Context { spec, weights, .. } = self.context;
        let (width, pairs) = (spec.width, weights.pairs_before(weights.ropes.len()));
        let Buffers { x, cos, sin, records, workers, .. } = buffers;
        let (x, cos, sin) = (Disjoint::new(x), Disjoint::new(cos), Disjoint::new(sin));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        let rows = &*self.rows;
        self.regions.each_row(rows.len(), 3 * width + 16 * pairs, |row, worker| {
            let (own, angles) = (row * width..(row + 1) * width, row * pairs..(row + 1) * pairs);
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            unsafe {
                let x = x.slice(own.clone());
                x.copy_from_slice(&states[own]);
                weights.angles(rows[row].position, cos.slice(angles.clone()), sin.slice(angles));
                start.row(x, workers.item(worker), &records, row);
            }
        })
    }
}

impl Observing<'_> {
    /// The same for one chunk.
    fn again(&mut self) -> Observing<'_> {
        Observing { observer: &mut *self.observer, rows: &mut *self.rows }
    }
}
