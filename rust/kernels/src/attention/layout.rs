//! Where keys and values lie in a page of the cache, and how they get there.

use super::TILE;
use crate::activation::{Activation, quantize_activations};
use crate::half::f32_to_f16;
use crate::{Cpu, LANES, elementwise};

/// Dimensions that share a scale in a quantized cache.
pub(super) const BLOCK: usize = 32;
/// Bytes of a word.
pub(super) const WORD: usize = 4;

/// Declares the formats: variant, name.
macro_rules! kv_formats {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal; )*) => {
        /// What the cache stores keys and values as.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
        pub enum KvFormat { $( $(#[$doc])* $variant, )* }

        impl KvFormat {
            /// Every format, the most accurate first.
            pub const ALL: &'static [KvFormat] = &[$( KvFormat::$variant, )*];

            /// The name in options and reports.
            pub const fn name(self) -> &'static str {
                match self { $( KvFormat::$variant => $name, )* }
            }
        }
    };
}

kv_formats! {
    /// As computed, in twice the memory of f16.
    F32 = "f32";
    /// Rounded to f16.
    #[default]
    F16 = "f16";
    /// Bytes with an f16 scale per 32 dimensions, 8.5 bits per value.
    Q8_0 = "q8_0";
}

impl KvFormat {
    /// The format called `name`.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.iter().copied().find(|format| format.name() == name)
    }
}

/// The page of one kv head: [`TILE`] keys and values in units of two bytes, which begin at a multiple of two bytes.
///
/// ```text
/// F32    | keys (key_dim, TILE) f32 | values (TILE, value_dim) f32 |
/// F16    | keys (key_dim, TILE) f16 | values (TILE, value_dim) f16 |
/// Q8_0   | keys (key_dim/4, TILE) words of 4 i8 | key scales (key_dim/32, TILE) f16
///        | values (TILE, value_dim) i8          | value scales (value_dim/32, TILE) f16 |
/// ```
///
/// Keys are transposed: the lanes of a vector are keys. In `Q8_0` lengths are rounded up, keys to whole words and values to whole
/// vectors of 16; the values beyond `value_dim` are zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeadLayout {
    /// What keys and values are stored as.
    pub format: KvFormat,
    /// Length of a key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
}

impl HeadLayout {
    /// Length of a page in units of two bytes.
    pub const fn page_len(self) -> usize {
        self.value_scales_at()
            + match self.format {
                KvFormat::F32 | KvFormat::F16 => 0,
                KvFormat::Q8_0 => self.value_dim.div_ceil(BLOCK) * TILE,
            }
    }

    /// Units from one value to the next.
    pub(super) const fn value_stride(self) -> usize {
        match self.format {
            KvFormat::F32 => self.value_dim * 2,
            KvFormat::F16 => self.value_dim,
            KvFormat::Q8_0 => self.value_dim.next_multiple_of(LANES) / 2,
        }
    }

    /// Where the scales of the keys begin; the keys are at 0.
    pub(super) const fn key_scales_at(self) -> usize {
        match self.format {
            KvFormat::F32 => self.key_dim * 2 * TILE,
            KvFormat::F16 => self.key_dim * TILE,
            KvFormat::Q8_0 => self.key_dim.div_ceil(WORD) * WORD / 2 * TILE,
        }
    }

    /// Where the values begin.
    pub(super) const fn values_at(self) -> usize {
        self.key_scales_at()
            + match self.format {
                KvFormat::F32 | KvFormat::F16 => 0,
                KvFormat::Q8_0 => self.key_dim.div_ceil(BLOCK) * TILE,
            }
    }

    /// Where the scales of the values begin.
    pub(super) const fn value_scales_at(self) -> usize {
        self.values_at() + TILE * self.value_stride()
    }

    /// Writes a key and a value into `slot` of a page. Position `t` has the slot `t % TILE`. In f32 they stay as they are; to f16 they are
    /// rounded to nearest even. To `Q8_0` they are quantized in blocks of 32, the last one filled up with zeros, as activations are
    /// ([`quantize_activations`]), and the scale is then rounded to f16: a block with a NaN or an infinity has the scale NaN,
    /// and the scale is infinite where the largest magnitude is above 8.3e6.
    ///
    /// # Panics
    /// When a length differs from the layout or `slot` is not below [`TILE`].
    pub fn store(
        self,
        cpu: Cpu,
        key: &[f32],
        value: &[f32],
        page: &mut [u16],
        slot: usize,
        scratch: &mut StoreScratch,
    ) {
        assert_eq!(page.len(), self.page_len(), "the page has the length of the layout");
        // SAFETY: the page has the length of the layout and is borrowed mutably.
        unsafe { self.store_at(cpu, key, value, page.as_mut_ptr(), slot, scratch) };
    }

    /// [`store`](HeadLayout::store) into a page of which others write other slots at the same time.
    ///
    /// # Safety
    /// `page` points to [`page_len`](HeadLayout::page_len) units that are valid for writes, and nobody else accesses the same
    /// slot during the call.
    ///
    /// # Panics
    /// As [`store`](HeadLayout::store).
    pub unsafe fn store_at(
        self,
        cpu: Cpu,
        key: &[f32],
        value: &[f32],
        page: *mut u16,
        slot: usize,
        scratch: &mut StoreScratch,
    ) {
        assert!(
            key.len() == self.key_dim && value.len() == self.value_dim,
            "key and value have the lengths of the layout"
        );
        assert!(slot < TILE, "a page has TILE slots");
        match self.format {
            KvFormat::F32 => {
                for (d, &x) in key.iter().enumerate() {
                    // SAFETY: d is below key_dim and slot below TILE; the caller's promise for the slot. Units need not be aligned
                    // as an f32 is.
                    unsafe { page.add((d * TILE + slot) * 2).cast::<f32>().write_unaligned(x) };
                }
                // SAFETY: row `slot` of the values is inside the page; the caller's promise for the slot. As bytes, since
                // units need not be aligned as an f32 is.
                unsafe {
                    let row = page.add(self.values_at() + slot * self.value_stride());
                    row.cast::<u8>().copy_from_nonoverlapping(value.as_ptr().cast(), size_of_val(value));
                }
            }
            KvFormat::F16 => {
                let halves = &mut scratch.halves;
                halves.resize(key.len().max(value.len()), 0);
                elementwise::to_f16(cpu, key, &mut halves[..key.len()]);
                for (d, &half) in halves[..key.len()].iter().enumerate() {
                    // SAFETY: d is below key_dim and slot below TILE; the caller's promise for the slot.
                    unsafe { page.add(d * TILE + slot).write(half) };
                }
                elementwise::to_f16(cpu, value, &mut halves[..value.len()]);
                // SAFETY: row `slot` of the values is inside the page; the caller's promise for the slot.
                unsafe {
                    let row = page.add(self.values_at() + slot * self.value_stride());
                    row.copy_from_nonoverlapping(halves.as_ptr(), value.len());
                }
            }
            KvFormat::Q8_0 => {
                let (q, scales) = scratch.quantize(cpu, key);
                for (word, bytes) in q.as_chunks::<WORD>().0[..key.len().div_ceil(WORD)].iter().enumerate() {
                    let [a, b, c, d] = *bytes;
                    // SAFETY: word is below key_dim / 4 rounded up, slot below TILE; the caller's promise for the slot.
                    unsafe {
                        let at = page.add((word * TILE + slot) * 2);
                        at.write(u16::from_le_bytes([a, b]));
                        at.add(1).write(u16::from_le_bytes([c, d]));
                    }
                }
                for (block, d) in scales.enumerate() {
                    // SAFETY: block is below key_dim / 32 rounded up; as above.
                    unsafe { page.add(self.key_scales_at() + block * TILE + slot).write(f32_to_f16(d)) };
                }
                let (q, scales) = scratch.quantize(cpu, value);
                for (i, &bytes) in q.as_chunks::<2>().0[..self.value_stride()].iter().enumerate() {
                    // SAFETY: row `slot` of the values is inside the page; as above.
                    unsafe {
                        let at = page.add(self.values_at() + slot * self.value_stride() + i);
                        at.write(u16::from_le_bytes(bytes));
                    }
                }
                for (block, d) in scales.enumerate() {
                    // SAFETY: block is below value_dim / 32 rounded up; as above.
                    unsafe { page.add(self.value_scales_at() + block * TILE + slot).write(f32_to_f16(d)) };
                }
            }
        }
    }
}

/// Working memory of one thread for [`HeadLayout::store`]. Grows to the longest head and is then reused.
#[derive(Default, Debug)]
pub struct StoreScratch {
    halves: Vec<u16>,
    /// A row, filled up to whole blocks.
    row: Vec<f32>,
    /// Its quantized record.
    record: Vec<u8>,
}

impl StoreScratch {
    /// The bytes of `x` filled up with zeros to whole blocks, and the scales of the blocks.
    pub(super) fn quantize(&mut self, cpu: Cpu, x: &[f32]) -> (&[u8], impl Iterator<Item = f32>) {
        let k = self.record_of(cpu, x);
        let scales = self.record[Activation::Block32.scales_at(k)..Activation::Block32.sums_at(k)].as_chunks::<4>().0;
        (&self.record[..k], scales.iter().map(|bytes| f32::from_ne_bytes(*bytes)))
    }

    /// The sums of the blocks that were quantized last, of a row of length `k`.
    pub(super) fn sums(&self, k: usize) -> impl Iterator<Item = i32> {
        let k = k.next_multiple_of(BLOCK);
        let sums = self.record[Activation::Block32.sums_at(k)..].as_chunks::<4>().0;
        // A block has the sums of its halves.
        sums[..k / BLOCK]
            .iter()
            .map(|&[a, b, c, d]| i32::from(i16::from_ne_bytes([a, b])) + i32::from(i16::from_ne_bytes([c, d])))
    }

    /// Quantizes `x` into the record and gives the length filled up.
    fn record_of(&mut self, cpu: Cpu, x: &[f32]) -> usize {
        let k = x.len().next_multiple_of(BLOCK);
        self.record.resize(Activation::Block32.row_bytes(k), 0);
        if k == x.len() {
            quantize_activations(cpu, Activation::Block32, x, k, &mut self.record);
        } else {
            self.row.clear();
            self.row.extend_from_slice(x);
            self.row.resize(k, 0.0);
            quantize_activations(cpu, Activation::Block32, &self.row, k, &mut self.record);
        }
        k
    }
}
