//! Weights that other libraries have quantized to integers of a few bits. Of those with four bits in groups of whole blocks, the integers
//! go into Q4_0 or Q4_1 as they are, only scales are rounded to f16; everything else becomes floats, and the result says so.
//!
//! | method | weights | scales | zeros |
//! |---|---|---|---|
//! | GPTQ (arXiv 2210.17323) | `qweight (k·bits/32, rows)`, a column is a stream of bits | `scales (groups, rows)` | `qzeros (groups, rows·bits/32)`, one less than meant unless `checkpoint_format` is `gptq_v2` |
//! | AWQ (arXiv 2306.00978) | `qweight (k, rows/8)`, nibbles of rows 0 2 4 6 1 3 5 7 | `scales (groups, rows)` | `qzeros (groups, rows/8)`, in the same order |
//! | compressed-tensors | `weight_packed (rows, k·bits/32)` | `weight_scale (rows, groups)` | `weight_zero_point (rows·bits/32, groups)`, or half of the levels |
//! | MLX | `weight (rows, k·bits/32)` | `scales (rows, groups)` | `biases (rows, groups)`, added |

use std::collections::BTreeMap;

use fastq_kernels::Format;
use fastq_kernels::checkpoint::{self as kernel, Group, Words};

use super::checkpoint::{Checkpoint, Stored};
use super::rows::{Source, float_format};
use crate::gguf::Quoted;
use crate::{Error, Result};

mod method;

pub(super) use method::Method;

/// Weights per block of Q4_0 and Q4_1.
const BLOCK: usize = 32;

/// How integers lie in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// Every column of words is a row, a stream of bits.
    Columns,
    /// Every column of words is eight rows, nibble by nibble.
    Nibbles,
    /// Every row of words is a row, a stream of bits.
    Rows,
}

/// The nibble of each of eight neighbours in a word of AWQ.
const AWQ_NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// What stands for zero.
#[derive(Clone, Debug)]
enum Zeros {
    /// The same level everywhere.
    Level(u8),
    /// Levels in words: `(groups, rows)` in streams of bits, to which a number is added.
    GroupsByRows(Stored, u8),
    /// The same in AWQ's order.
    Awq(Stored),
    /// `(rows, groups)`, streams of bits along the rows.
    RowsByGroups(Stored),
    /// None; this is added to `scale * level`: `(rows, groups)`.
    Bias(Stored, Format),
}

/// A quantized matrix, or several.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// Dimensions, the contiguous one last.
    pub(super) shape: Vec<usize>,
    bits: u32,
    /// Weights of a group.
    group: usize,
    layout: Layout,
    weights: Stored,
    scales: Stored,
    scale_format: Format,
    /// Scales are `(groups, rows)`, not `(rows, groups)`.
    scales_by_group: bool,
    zeros: Zeros,
    /// The group of every column, where they are not in order.
    groups: Option<Vec<u32>>,
    /// The format that holds it without loss, or why there is none.
    native: Result<Format, &'static str>,
}

impl Packed {
    fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    fn k(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// The tensor with the integers.
    pub(super) fn stored(&self) -> &Stored {
        &self.weights
    }

    /// The format that holds it without loss, else the floats of its scales.
    pub(super) fn native(&self) -> Format {
        self.native.unwrap_or(match self.scale_format {
            Format::BF16 => Format::BF16,
            _ => Format::F16,
        })
    }

    /// Why no block format holds it without loss.
    pub(super) fn loss(&self) -> Option<String> {
        let Packed { bits, group, .. } = self;
        self.native.err().map(|why| format!("{bits} bits in groups of {group}: {why}"))
    }

    /// Finds out which format holds it without loss.
    fn settle(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.native = if self.bits != 4 {
            Err("only four bits have a block format with the same integers")
        } else if self.groups.is_some() {
            Err("its columns are not in the order of their groups (act-order)")
        } else if !self.group.is_multiple_of(BLOCK) {
            Err("groups are no multiple of 32")
        } else {
            match PackedReader::new(checkpoint, self)?.is_symmetric()? {
                true => Ok(Format::Q4_0),
                false => Ok(Format::Q4_1),
            }
        };
        Ok(())
    }
}

/// Reads rows of integers; holds the whole tensor.
pub(super) struct PackedReader<'a> {
    packed: &'a Packed,
    weights: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    biases: Vec<f32>,
    levels: Vec<u8>,
    groups: Vec<Group>,
    group_of: Vec<u32>,
}

impl<'a> PackedReader<'a> {
    pub(super) fn new(checkpoint: &Checkpoint, packed: &'a Packed) -> Result<PackedReader<'a>> {
        let floats = |stored: &Stored, format: Format| -> Result<Vec<f32>> {
            let bytes = checkpoint.read_all(stored)?;
            let mut out = vec![0.0; bytes.len() / format.info().bytes];
            format.dequantize(&bytes, &mut out);
            Ok(out)
        };
        let k = packed.k();
        let group_of = match &packed.groups {
            Some(groups) => groups.clone(),
            None => (0..k).map(|column| (column / packed.group) as u32).collect(),
        };
        let (zeros, biases) = match &packed.zeros {
            Zeros::Level(_) => (Vec::new(), Vec::new()),
            Zeros::GroupsByRows(stored, _) | Zeros::Awq(stored) | Zeros::RowsByGroups(stored) => {
                (checkpoint.read_all(stored)?, Vec::new())
            }
            Zeros::Bias(stored, format) => (Vec::new(), floats(stored, *format)?),
        };
        Ok(PackedReader {
            packed,
            weights: checkpoint.read_all(&packed.weights)?,
            scales: floats(&packed.scales, packed.scale_format)?,
            zeros,
            biases,
            levels: vec![0; k],
            groups: Vec::new(),
            group_of,
        })
    }

    /// Groups of a row.
    fn count(&self) -> usize {
        self.packed.k().div_ceil(self.packed.group)
    }

    /// The integers of a row into `levels`.
    fn read_levels(&mut self, row: usize) {
        let Packed { bits, layout, .. } = *self.packed;
        let (rows, k) = (self.packed.rows(), self.packed.k());
        let bytes = &self.weights;
        match layout {
            Layout::Columns => Words { bytes, first: row, stride: rows }.levels(bits, &mut self.levels),
            Layout::Nibbles => {
                let words = Words { bytes, first: row / 8, stride: rows / 8 };
                words.nibbles(4 * AWQ_NIBBLE[row % 8], &mut self.levels);
            }
            Layout::Rows => {
                let words = k * bits as usize / 32;
                Words { bytes, first: row * words, stride: 1 }.levels(bits, &mut self.levels);
            }
        }
    }

    /// The level at an index of a stream of bits that begins at a word.
    fn level(&self, first: usize, stride: usize, index: usize) -> u8 {
        let bits = self.packed.bits as usize;
        // A level that begins in one word may end in the next.
        let (word, shift) = (index * bits / 32, index * bits % 32);
        let get = |word: usize| {
            let at = 4 * (first + word * stride);
            self.zeros.get(at..at + 4).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        };
        let pair = get(word) | if shift + bits > 32 { get(word + 1) << 32 } else { 0 };
        (pair >> shift & ((1 << bits) - 1)) as u8
    }

    /// The level that stands for zero in a group of a row.
    fn zero(&self, row: usize, group: usize) -> u8 {
        let Packed { bits, .. } = *self.packed;
        let (rows, count) = (self.packed.rows(), self.count());
        let mask = ((1u32 << bits) - 1) as u8;
        match &self.packed.zeros {
            Zeros::Level(level) => *level,
            Zeros::GroupsByRows(_, more) => {
                self.level(group * (rows * bits as usize / 32), 1, row).wrapping_add(*more) & mask
            }
            Zeros::Awq(_) => {
                let word = group * (rows / 8) + row / 8;
                let byte = |at: usize| u32::from(self.zeros[4 * word + at]) << (8 * at);
                ((0..4).map(byte).sum::<u32>() >> (4 * AWQ_NIBBLE[row % 8]) & 15) as u8
            }
            Zeros::RowsByGroups(_) => self.level(group, count, row),
            Zeros::Bias(..) => 0,
        }
    }

    /// What the groups of a row stand for into `groups`.
    fn read_groups(&mut self, row: usize) {
        let (rows, count) = (self.packed.rows(), self.count());
        let mut groups = std::mem::take(&mut self.groups);
        groups.clear();
        groups.extend((0..count).map(|group| {
            let scale = match self.packed.scales_by_group {
                true => self.scales[group * rows + row],
                false => self.scales[row * count + group],
            };
            let bias = self.biases.get(row * count + group).copied().unwrap_or(0.0);
            Group { scale, zero: f32::from(self.zero(row, group)), bias }
        }));
        self.groups = groups;
    }

    /// Whether every group stands for a grid around 8. Errors are those of scales that are not finite.
    fn is_symmetric(&mut self) -> Result<bool> {
        let mut symmetric = true;
        for row in 0..self.packed.rows() {
            self.read_groups(row);
            symmetric &= self.groups.iter().all(|group| match self.packed.zeros {
                Zeros::Bias(..) => group.bias == -8.0 * group.scale,
                _ => group.zero == 8.0,
            });
            if !symmetric {
                break;
            }
        }
        Ok(symmetric)
    }

    /// A row in `format` with the same integers; `false` where the format has others.
    pub(super) fn blocks(&mut self, row: usize, format: Format, out: &mut [u8]) -> Result<bool> {
        let fits = match (self.packed.native, format) {
            (Ok(Format::Q4_0), Format::Q4_0 | Format::Q4_1) => true,
            (Ok(native), format) => native == format,
            (Err(_), _) => false,
        };
        if !fits {
            return Ok(false);
        }
        self.read_levels(row);
        self.read_groups(row);
        let per_group = self.packed.group / BLOCK;
        let (mut scales, mut minima) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let minimum = group.bias - group.scale * group.zero;
            for value in [group.scale, minimum] {
                if value.is_nan() || value.abs() >= 65520.0 {
                    let what =
                        format!("has a scale or minimum of {value} in row {row}, which {} cannot hold", format.name());
                    return Err(Error::Argument(what));
                }
            }
            scales.extend(std::iter::repeat_n(group.scale, per_group));
            minima.extend(std::iter::repeat_n(minimum, per_group));
        }
        // The last group may be shorter.
        let blocks = self.levels.len() / BLOCK;
        match format {
            Format::Q4_0 => kernel::q4_0_of_levels(&self.levels, &scales[..blocks], out),
            _ => kernel::q4_1_of_levels(&self.levels, &scales[..blocks], &minima[..blocks], out),
        }
        Ok(true)
    }

    /// A row as floats.
    pub(super) fn floats(&mut self, row: usize, out: &mut [f32]) -> Result<()> {
        self.read_levels(row);
        self.read_groups(row);
        kernel::dequantize_levels(&self.levels, &self.group_of, &self.groups, out);
        Ok(())
    }
}

/// Every tensor of the model, by its name without quantization: what belongs to one matrix is one source.
pub(super) fn sources(checkpoint: &Checkpoint, method: &Method) -> Result<BTreeMap<String, Source>> {
    let mut sources = BTreeMap::new();
    let mut parts: Vec<&str> = Vec::new();
    for (name, stored) in &checkpoint.tensors {
        if let Some((module, packed)) = method.matrix(checkpoint, name, stored)? {
            sources.insert(format!("{module}.weight"), Source::Packed(Box::new(packed)));
        } else if let Some(module) = name.strip_suffix("_blocks")
            && let Some(scales) = checkpoint.tensors.get(&format!("{module}_scales"))
        {
            sources.insert(module.to_owned(), micro(checkpoint, name, stored, scales)?);
        } else {
            parts.push(name);
        }
    }
    for name in parts {
        let stored = &checkpoint.tensors[name];
        let of_micro = name
            .strip_suffix("_scales")
            .is_some_and(|module| matches!(sources.get(module), Some(Source::Micro { .. })));
        if of_micro || method.is_part(name, &sources) {
            continue;
        }
        match float_format(stored.dtype) {
            Some(format) => {
                if sources.insert(name.to_owned(), Source::Floats(stored.clone(), format)).is_some() {
                    return Err(checkpoint.error(name, stored, "is there twice: as floats and as integers"));
                }
            }
            // Buffers such as position_ids are integers; whether a tensor may be left out is decided by its name.
            None => {
                sources.insert(name.to_owned(), Source::Floats(stored.clone(), Format::F32));
            }
        }
    }
    Ok(sources)
}

/// The four-bit floats of gpt-oss.
fn micro(checkpoint: &Checkpoint, name: &str, blocks: &Stored, scales: &Stored) -> Result<Source> {
    let shaped = blocks.shape.len() >= 3
        && blocks.shape.last() == Some(&16)
        && blocks.shape[..blocks.shape.len() - 1] == scales.shape[..];
    let bytes = |stored: &Stored| matches!(stored.dtype, safetensors::Dtype::U8 | safetensors::Dtype::F8_E8M0);
    if !shaped || !bytes(blocks) || !bytes(scales) {
        let (a, b) = (&blocks.shape, &scales.shape);
        let what = format!("must be bytes (…, blocks, 16) with scales (…, blocks), found {a:?} with {b:?}");
        return Err(checkpoint.error(name, blocks, what));
    }
    Ok(Source::Micro { blocks: blocks.clone(), scales: scales.clone() })
}

/// An error about one of the tensors of a quantized matrix.
fn wrong(checkpoint: &Checkpoint, name: &str, stored: &Stored, expected: &str) -> Error {
    let (shape, dtype) = (&stored.shape, stored.dtype);
    checkpoint.error(name, stored, format!("must be {expected}, found {dtype:?} {shape:?}"))
}

/// A tensor that must be there.
fn need<'a>(checkpoint: &'a Checkpoint, of: (&str, &Stored), name: &str) -> Result<&'a Stored> {
    checkpoint
        .tensors
        .get(name)
        .ok_or_else(|| checkpoint.error(of.0, of.1, format!("needs tensor {}, which is not there", Quoted(name))))
}
