//! Weights of the source: a sample of them, or a whole tensor in another format.

use fastq_kernels::quantize::{ROWS, search};
use fastq_kernels::{Cpu, Format};

use super::BATCH_WEIGHTS;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::Replacement;
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Result};

/// Bytes of some rows.
pub(super) fn bytes_of(rows: usize, row: usize) -> Result<usize> {
    rows.checked_mul(row).ok_or_else(|| Error::Memory(format!("{rows} rows of {row} bytes exceed the address space")))
}

/// Memory for `count` items; that there is none is an error, not the end of the process.
pub(in crate::quantize) fn buffer<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    items
        .try_reserve_exact(count)
        .map_err(|_| Error::Memory(format!("{bytes} bytes for a piece of a tensor are not to be had")))?;
    items.resize(count, value);
    Ok(items)
}

/// Type and length of the rows of a tensor that holds weights.
fn layout(info: &TensorInfo) -> Result<(Format, usize)> {
    let lost = || Error::Internal(format!("tensor {:?} cannot be read", info.name));
    Ok((info.ty.kernel().ok_or_else(lost)?, usize::try_from(info.k()).map_err(|_| lost())?))
}

/// At most `count` rows `(rows, k)` of a tensor, evenly spread.
///
/// # Errors
/// [`Error::Io`], [`Error::ModelFile`] as the reader; [`Error::Memory`].
pub(in crate::quantize) fn sample(source: &Gguf, info: &TensorInfo, count: u64) -> Result<Vec<f32>> {
    let (format, k) = layout(info)?;
    let row_bytes = bytes_of_row(info, format, k)?;
    let rows = info.rows().min(count);
    let mut reader = source.reader();
    let (mut bytes, mut out) = (buffer(row_bytes, 0u8)?, buffer(rows as usize * k, 0.0)?);
    for (i, out) in out.chunks_exact_mut(k).enumerate() {
        reader.read(info, i as u64 * info.rows() / rows * row_bytes as u64, &mut bytes)?;
        format.dequantize(&bytes, out);
    }
    Ok(out)
}

/// All of a tensor, as a [search](fastq_kernels::quantize::search) makes it in another format, which divides its rows and has a grid.
///
/// # Errors
/// As for [`sample`]; [`Error::Cancelled`].
pub(in crate::quantize) fn searched(
    source: &Gguf,
    info: &TensorInfo,
    to: Format,
    importance: Option<&[f32]>,
    (pool, cpu): (&mut Pool, Cpu),
    interrupt: &dyn Interrupt,
) -> Result<Replacement> {
    let (from, k) = layout(info)?;
    let (from_bytes, to_bytes) = (bytes_of_row(info, from, k)?, bytes_of_row(info, to, k)?);
    let refused = |_| Error::Memory(format!("tensor {:?} does not fit the memory", info.name));
    let rows = usize::try_from(info.rows()).map_err(refused)?;
    let mut out = buffer(bytes_of(rows, to_bytes)?, 0u8)?;
    let batch = (BATCH_WEIGHTS / k).max(ROWS).next_multiple_of(ROWS).min(rows);
    let mut bytes = buffer(bytes_of(batch, from_bytes)?, 0u8)?;
    let mut reader = source.reader();
    for (index, out) in out.chunks_mut(batch * to_bytes).enumerate() {
        let count = out.len() / to_bytes;
        let bytes = &mut bytes[..count * from_bytes];
        reader.read(info, (index * batch * from_bytes) as u64, bytes)?;
        let (bytes, shared) = (&*bytes, Disjoint::new(out));
        pool.run(count.div_ceil(ROWS), interrupt, |piece, _| {
            let range = piece * ROWS..count.min((piece + 1) * ROWS);
            // SAFETY: every piece has rows of its own.
            let out = unsafe { shared.slice(range.start * to_bytes..range.end * to_bytes) };
            let mut values = vec![0.0; range.len() * k];
            from.dequantize(&bytes[range.start * from_bytes..range.end * from_bytes], &mut values);
            search(cpu, to, k, importance, &values, out);
        })?;
    }
    Ok(Replacement { ty: to.into(), data: out.into() })
}

/// Bytes of a row of `info` in `format`.
pub(super) fn bytes_of_row(info: &TensorInfo, format: Format, k: usize) -> Result<usize> {
    format
        .row_bytes(k)
        .ok_or_else(|| Error::Internal(format!("tensor {:?}: rows of {k} in {}", info.name, format.name())))
}
