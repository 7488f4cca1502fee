//! The rows of tensors: where they come from, in which order they go into the file, and what is done with them on the way.

use fastq_kernels::{Cpu, Format, checkpoint as kernel};
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, Stored};
use super::packed::{Packed, PackedReader};
use crate::{Error, Result};

/// Bytes that are read at once where rows follow each other.
const WINDOW: u64 = 1 << 20;

/// A tensor of the model as the checkpoint has it.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Floats.
    Floats(Stored, Format),
    /// Integers of a few bits.
    Packed(Box<Packed>),
    /// The four-bit floats of gpt-oss: bytes of two neighbours, and E8M0 scales.
    Micro { blocks: Stored, scales: Stored },
}

/// The format of a tensor of floats.
pub(super) fn float_format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

impl Source {
    /// Dimensions, the contiguous one last.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Source::Floats(stored, _) => stored.shape.clone(),
            Source::Packed(packed) => packed.shape.clone(),
            Source::Micro { blocks, .. } => {
                let mut shape = blocks.shape[..blocks.shape.len() - 2].to_vec();
                shape.push(blocks.shape[blocks.shape.len() - 2] * 32);
                shape
            }
        }
    }

    /// The format that holds the rows without loss.
    pub(super) fn native(&self) -> Format {
        match self {
            Source::Floats(_, format) => *format,
            Source::Packed(packed) => packed.native(),
            Source::Micro { .. } => Format::MXFP4,
        }
    }

    /// A tensor of the checkpoint that stands for it in messages.
    pub(super) fn stored(&self) -> &Stored {
        match self {
            Source::Floats(stored, _) | Source::Micro { blocks: stored, .. } => stored,
            Source::Packed(packed) => packed.stored(),
        }
    }
}

/// Which row of the source a row of the file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// The same, from a row on.
    From(usize),
    /// Of every head, the rows of both halves in turn: what rope pairs is then adjacent.
    Pairs {
        /// Rows of a head.
        size: usize,
    },
    /// One part of `of` equal parts of every matrix of `rows` rows.
    Part { index: usize, of: usize, rows: usize },
    /// Every `of`-th row of every matrix of `rows` rows, from `index` on.
    Every { index: usize, of: usize, rows: usize },
    /// Behind `skip` rows: the heads that share a key are apart by the number of keys, not neighbours.
    Values { skip: usize, keys: usize, per_key: usize, size: usize },
}

impl Order {
    pub(super) fn source(self, row: usize) -> usize {
        match self {
            Order::From(first) => first + row,
            Order::Pairs { size } => {
                let (head, at) = (row / size, row % size);
                head * size + at % 2 * (size / 2) + at / 2
            }
            Order::Part { index, of, rows } => {
                let part = rows / of;
                row / part * rows + index * part + row % part
            }
            Order::Every { index, of, rows } => {
                let part = rows / of;
                row / part * rows + row % part * of + index
            }
            Order::Values { skip, .. } if row < skip => row,
            Order::Values { skip, keys, per_key, size } => {
                let (head, at) = ((row - skip) / size, (row - skip) % size);
                skip + (head % keys * per_key + head / keys) * size + at
            }
        }
    }
}

/// What is done with every value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// Nothing.
    None,
    /// 1 is added.
    PlusOne,
    /// `-e^x`.
    NegativeExp,
}

/// Rows of a source that go into a tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Its name in the checkpoint.
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) rows: usize,
    pub(super) order: Order,
    /// The source has columns where the file has rows, in every matrix of the two last dimensions.
    pub(super) transposed: bool,
}

/// How the rows of a tensor are made.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) pieces: Vec<Piece>,
    pub(super) k: usize,
    /// Order of the columns, an [`Order`] of runs.
    pub(super) columns: Option<Order>,
    pub(super) operation: Operation,
}

impl Recipe {
    /// The format that holds the tensor without loss; `None` where there is none for all its pieces together.
    pub(super) fn native(&self) -> Option<Format> {
        let mut native: Option<Format> = None;
        for piece in &self.pieces {
            let own = piece.source.native();
            native = match native {
                None => Some(own),
                Some(same) if same == own => Some(own),
                // A grid around 8 is one with a minimum of -8 steps.
                Some(Format::Q4_0 | Format::Q4_1) if matches!(own, Format::Q4_0 | Format::Q4_1) => Some(Format::Q4_1),
                Some(_) => return None,
            };
        }
        let native = native?;
        let whole_runs = match self.columns {
            Some(Order::Values { skip, size, .. }) => skip % 32 == 0 && size % 32 == 0,
            Some(_) => false,
            None => true,
        };
        let plain = self.operation == Operation::None && whole_runs;
        (native.info().block == 1 || plain).then_some(native)
    }

    /// Gives the rows in `format`, some at a time.
    pub(super) fn write(
        &self,
        checkpoint: &Checkpoint,
        format: Format,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let cpu = Cpu::detect().map_err(|error| Error::Argument(error.to_string()))?;
        let row_bytes =
            format.row_bytes(self.k).ok_or_else(|| Error::Internal(format!("rows of {} as {format:?}", self.k)))?;
        let at_once = (WINDOW as usize / row_bytes.max(1)).max(1);
        let mut buffer = Vec::with_capacity(at_once * row_bytes);
        let (mut floats, mut moved) = (vec![0.0; self.k], vec![0.0; self.k]);
        for piece in &self.pieces {
            let mut reader = Reader::new(checkpoint, piece, self.k)?;
            let named = |error| match error {
                Error::Argument(what) => checkpoint.error(&piece.name, piece.source.stored(), what),
                other => other,
            };
            for row in 0..piece.rows {
                let start = buffer.len();
                buffer.resize(start + row_bytes, 0);
                let target = &mut buffer[start..];
                let source = piece.order.source(row);
                let whole = !reader.is_float() && reader.blocks(source, format, target).map_err(named)?;
                if whole {
                    if let Some(order) = self.columns {
                        move_blocks(order, format, target);
                    }
                } else {
                    reader.floats(source, &mut floats)?;
                    if let Some(order) = self.columns {
                        (0..self.k).for_each(|column| moved[column] = floats[order.source(column)]);
                        std::mem::swap(&mut floats, &mut moved);
                    }
                    match self.operation {
                        Operation::None => {}
                        Operation::PlusOne => kernel::add(&mut floats, 1.0),
                        Operation::NegativeExp => kernel::negative_exp(&mut floats),
                    }
                    check(checkpoint, piece, source, &floats, format)?;
                    format
                        .quantize_row(cpu, &floats, None, target)
                        .map_err(|error| Error::Argument(error.to_string()))?;
                }
                if buffer.len() >= at_once * row_bytes {
                    out(&buffer)?;
                    buffer.clear();
                }
            }
        }
        if buffer.is_empty() { Ok(()) } else { out(&buffer) }
    }
}

/// Refuses values that the format cannot hold.
fn check(checkpoint: &Checkpoint, piece: &Piece, row: usize, values: &[f32], format: Format) -> Result<()> {
    let peak = kernel::peak(values);
    let stored = piece.source.stored();
    if !peak.is_finite() {
        let what = format!("must hold finite numbers, found {peak} in row {row}");
        return Err(checkpoint.error(&piece.name, stored, what));
    }
    // The scale of Q8_0 is an f16, too: of the largest magnitude divided by 127.
    let limit = match format {
        Format::F16 => 65519.0,
        Format::Q8_0 => 65519.0 * 127.0,
        _ => f32::INFINITY,
    };
    if peak > limit {
        let (name, what) = (format.name(), "use dtype \"bf16\" or \"f32\"");
        return Err(checkpoint.error(
            &piece.name,
            stored,
            format!("has {peak} in row {row}, too large for {name}: {what}"),
        ));
    }
    Ok(())
}

/// Moves blocks of a row into another order.
fn move_blocks(order: Order, format: Format, row: &mut [u8]) {
    let (block, bytes) = (format.info().block, format.info().bytes);
    let old = row.to_vec();
    for (index, target) in row.chunks_exact_mut(bytes).enumerate() {
        let from = order.source(index * block) / block * bytes;
        target.copy_from_slice(&old[from..from + bytes]);
    }
}

/// Reads rows of a piece.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    kind: Kind<'a>,
    k: usize,
    raw: Vec<u8>,
}

enum Kind<'a> {
    /// Rows of floats, and which rows are in `window`.
    Floats {
        stored: &'a Stored,
        format: Format,
        window: Vec<u8>,
        first: usize,
        rows: usize,
        at_once: usize,
    },
    /// Matrices whose columns are wanted, and which one is in `matrix`.
    Columns {
        stored: &'a Stored,
        format: Format,
        columns: usize,
        matrix: Vec<u8>,
        current: Option<usize>,
    },
    Packed(PackedReader<'a>),
    Micro {
        blocks: &'a Stored,
        scales: &'a Stored,
    },
}

impl<'a> Reader<'a> {
    fn new(checkpoint: &'a Checkpoint, piece: &'a Piece, k: usize) -> Result<Reader<'a>> {
        let kind = match &piece.source {
            Source::Floats(stored, format) if piece.transposed => {
                let columns = stored.shape.last().copied().unwrap_or(1);
                Kind::Columns { stored, format: *format, columns, matrix: Vec::new(), current: None }
            }
            Source::Floats(stored, format) => {
                let bytes = format.row_bytes(k).unwrap_or(0).max(1) as u64;
                let rows = (stored.bytes / bytes) as usize;
                let in_order = matches!(piece.order, Order::From(_));
                let at_once = if in_order { (WINDOW / bytes).max(1) as usize } else { 1 };
                Kind::Floats { stored, format: *format, window: Vec::new(), first: 0, rows, at_once }
            }
            Source::Packed(packed) => Kind::Packed(PackedReader::new(checkpoint, packed)?),
            Source::Micro { blocks, scales } => Kind::Micro { blocks, scales },
        };
        Ok(Reader { checkpoint, kind, k, raw: Vec::new() })
    }

    fn is_float(&self) -> bool {
        matches!(self.kind, Kind::Floats { .. } | Kind::Columns { .. })
    }

    /// A row in `format` without loss; `false` where that is impossible.
    fn blocks(&mut self, row: usize, format: Format, out: &mut [u8]) -> Result<bool> {
        match &mut self.kind {
            Kind::Packed(reader) => reader.blocks(row, format, out),
            Kind::Micro { .. } if format == Format::MXFP4 => self.micro(row, out).map(|()| true),
            _ => Ok(false),
        }
    }

    fn micro(&mut self, row: usize, out: &mut [u8]) -> Result<()> {
        let Kind::Micro { blocks, scales } = self.kind else { return Ok(()) };
        let count = self.k / 32;
        self.raw.resize(17 * count, 0);
        let (pairs, exponents) = self.raw.split_at_mut(16 * count);
        self.checkpoint.read(blocks, (row * 16 * count) as u64, pairs)?;
        self.checkpoint.read(scales, (row * count) as u64, exponents)?;
        kernel::mxfp4_of_pairs(pairs, exponents, out);
        Ok(())
    }

    /// A row as floats.
    fn floats(&mut self, row: usize, out: &mut [f32]) -> Result<()> {
        let checkpoint = self.checkpoint;
        match &mut self.kind {
            Kind::Floats { stored, format, window, first, rows, at_once } => {
                let bytes = format.row_bytes(self.k).unwrap_or(0);
                let held = window.len() / bytes.max(1);
                if !(*first..*first + held).contains(&row) {
                    let count = (*at_once).min(rows.saturating_sub(row)).max(1);
                    window.resize(count * bytes, 0);
                    checkpoint.read(stored, row as u64 * bytes as u64, window)?;
                    *first = row;
                }
                let start = (row - *first) * bytes;
                format.dequantize(&window[start..start + bytes], out);
            }
            Kind::Columns { stored, format, columns, matrix, current } => {
                let size = format.info().bytes;
                let (index, column) = (row / *columns, row % *columns);
                if *current != Some(index) {
                    matrix.resize(self.k * *columns * size, 0);
                    checkpoint.read(stored, index as u64 * matrix.len() as u64, matrix)?;
                    *current = Some(index);
                }
                self.raw.resize(self.k * size, 0);
                kernel::gather(matrix, size, column, *columns, &mut self.raw);
                format.dequantize(&self.raw, out);
            }
            Kind::Packed(reader) => reader.floats(row, out)?,
            Kind::Micro { .. } => {
                let mut blocks = vec![0; self.k / 32 * 17];
                self.micro(row, &mut blocks)?;
                Format::MXFP4.dequantize(&blocks, out);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(order: Order, count: usize) -> Vec<usize> {
        (0..count).map(|row| order.source(row)).collect()
    }

    #[test]
    fn orders() {
        assert_eq!(rows(Order::From(3), 3), [3, 4, 5]);
        assert_eq!(rows(Order::Pairs { size: 6 }, 12), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(rows(Order::Part { index: 1, of: 2, rows: 4 }, 4), [2, 3, 6, 7]);
        assert_eq!(rows(Order::Every { index: 1, of: 2, rows: 4 }, 4), [1, 3, 5, 7]);
        // Two keys with three values each, of two rows: the first values of all keys come first.
        let values = Order::Values { skip: 1, keys: 2, per_key: 3, size: 2 };
        assert_eq!(rows(values, 13), [0, 1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12]);
    }

    #[test]
    fn blocks_move_whole() {
        let mut row: Vec<u8> = (0..4u8).flat_map(|block| [block; 18]).collect();
        move_blocks(Order::Values { skip: 0, keys: 2, per_key: 2, size: 32 }, Format::Q4_0, &mut row);
        assert_eq!(row.chunks(18).map(|block| block[0]).collect::<Vec<_>>(), [0, 2, 1, 3]);
    }
}
