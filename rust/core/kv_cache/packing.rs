//! The positions of a page that are in use, close together: what a file holds of a page. A short text does not take a whole page there.

use fastq_kernels::LANES;
use fastq_kernels::attention::{HeadLayout, KvFormat, TILE};

use super::GroupLayout;

/// Key dimensions in a word of [`KvFormat::Q8_0`].
const WORD: usize = 4;
/// Dimensions that share a scale in [`KvFormat::Q8_0`].
const BLOCK: usize = 32;

/// A part of the page of a head: rows of [`TILE`] slots, each slot of so many units of two bytes.
#[derive(Clone, Copy)]
struct Part {
    rows: usize,
    units: usize,
}

/// The parts of a page in their order, as the drawing of [`HeadLayout`] has them: where slots are outermost, as in values, that is one
/// row.
fn parts(head: HeadLayout) -> [Part; 4] {
    let part = |rows, units| Part { rows, units };
    let none = part(0, 0);
    let (key, value) = (head.key_dim, head.value_dim);
    match head.format {
        KvFormat::F32 => [part(key, 2), part(1, value * 2), none, none],
        KvFormat::F16 => [part(key, 1), part(1, value), none, none],
        KvFormat::Q8_0 => [
            part(key.div_ceil(WORD), 2),
            part(key.div_ceil(BLOCK), 1),
            part(1, value.next_multiple_of(LANES) / 2),
            part(value.div_ceil(BLOCK), 1),
        ],
    }
}

impl GroupLayout {
    /// Units of two bytes that the first `slots` positions of a page take without the others.
    pub(super) fn packed_len(&self, slots: usize) -> usize {
        self.page_len / TILE * slots
    }

    /// Where in a page the first `slots` positions are, as ranges in their order.
    fn ranges(&self, slots: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let heads = self.layers.iter().flat_map(|(layer, _)| std::iter::repeat_n(layer.head(), layer.kv_heads));
        let rows = heads.flat_map(parts).flat_map(|part| std::iter::repeat_n(part.units, part.rows));
        rows.scan(0, move |at, units| {
            let start = *at;
            *at += units * TILE;
            Some(start..start + units * slots)
        })
    }

    /// Appends the first `slots` positions of a page to `out`.
    ///
    /// # Panics
    /// When the page is not of this group.
    pub(super) fn pack(&self, page: &[u16], slots: usize, out: &mut Vec<u8>) {
        assert_eq!(page.len(), self.page_len, "the page has the length of the group");
        for range in self.ranges(slots) {
            out.extend(page[range].iter().flat_map(|unit| unit.to_le_bytes()));
        }
    }

    /// Takes back what [`pack`](GroupLayout::pack) has made of the first `slots` positions; the others stay as they are.
    ///
    /// # Panics
    /// When the page is not of this group or `packed` has another length than [`packed_len`](GroupLayout::packed_len) units.
    pub(super) fn unpack(&self, packed: &[u8], slots: usize, page: &mut [u16]) {
        assert_eq!(page.len(), self.page_len, "the page has the length of the group");
        assert_eq!(packed.len(), self.packed_len(slots) * 2, "the positions have the length of the group");
        let mut units = packed.as_chunks::<2>().0.iter();
        for range in self.ranges(slots) {
            for (unit, bytes) in page[range].iter_mut().zip(&mut units) {
                *unit = u16::from_le_bytes(*bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fastq_kernels::Cpu;
    use fastq_kernels::attention::StoreScratch;
    use fastq_kernels::testing::Rng;

    use super::super::LayerKv;
    use super::*;

    /// The positions that were stored, and nothing that a page holds behind them.
    #[test]
    fn the_positions_in_use_come_back() {
        let cpu = Cpu::detect().expect("a level");
        let mut rng = Rng::new(1);
        for &format in KvFormat::ALL {
            for (kv_heads, key_dim, value_dim) in [(1, 64, 64), (3, 50, 33), (2, 7, 100)] {
                let layer = LayerKv { kv_heads, key_dim, value_dim, format };
                let group = GroupLayout::new(None, [layer; 2]);
                let all: usize = parts(layer.head()).iter().map(|part| part.rows * part.units * TILE).sum();
                assert_eq!(all, layer.head().page_len(), "{layer:?}");
                for slots in [0, 1, 17, TILE] {
                    // `full` has something behind the positions that are asked for.
                    let (mut full, mut expected) = (vec![0xABCD; group.page_len], vec![0; group.page_len]);
                    for page in
                        full.chunks_mut(layer.head().page_len()).zip(expected.chunks_mut(layer.head().page_len()))
                    {
                        for slot in 0..slots {
                            let values: Vec<f32> = (0..key_dim + value_dim).map(|_| rng.bell()).collect();
                            let (key, value) = values.split_at(key_dim);
                            let scratch = &mut StoreScratch::default();
                            layer.head().store(cpu, key, value, page.0, slot, scratch);
                            layer.head().store(cpu, key, value, page.1, slot, scratch);
                        }
                    }
                    let mut packed = Vec::new();
                    group.pack(&full, slots, &mut packed);
                    assert_eq!(packed.len(), group.packed_len(slots) * 2);
                    let mut back = vec![0; group.page_len];
                    group.unpack(&packed, slots, &mut back);
                    assert!(back == expected, "{layer:?} {slots}");
                }
            }
        }
    }
}
