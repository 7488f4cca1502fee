//! Writing tokens into the pages of the cache.

use super::TILE;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES, elementwise};

struct StoreKey<'a> {
    key: &'a [f32],
    page: &'a mut [u16],
    slot: usize,
}

impl Kernel for StoreKey<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (key, rows) in self.key.chunks(LANES).zip(self.page.chunks_mut(LANES * TILE)) {
            let mut halves = [0; LANES];
            isa.store_f16(isa.load_first(key, 0.0), &mut halves);
            for (row, half) in rows.chunks_exact_mut(TILE).zip(halves) {
                row[self.slot] = half;
            }
        }
    }
}

/// Writes a key, rounded to f16, into column `slot` of a key page `(key_dim, TILE)`. Position `t` has the slot `t % TILE`.
///
/// # Panics
/// When the page does not have `key.len()` rows or `slot` is not below [`TILE`].
pub fn store_key(cpu: Cpu, key: &[f32], page: &mut [u16], slot: usize) {
    assert_eq!(page.len(), key.len() * TILE, "a key page is (key_dim, TILE)");
    assert!(slot < TILE, "a page has TILE slots");
    dispatch_floats(cpu, StoreKey { key, page, slot });
}

/// Writes a value, rounded to f16, into row `slot` of a value page `(TILE, value_dim)`. Position `t` has the slot `t % TILE`.
///
/// # Panics
/// When the page does not have [`TILE`] rows of `value.len()` or `slot` is not below [`TILE`].
pub fn store_value(cpu: Cpu, value: &[f32], page: &mut [u16], slot: usize) {
    assert_eq!(page.len(), TILE * value.len(), "a value page is (TILE, value_dim)");
    assert!(slot < TILE, "a page has TILE slots");
    elementwise::to_f16(cpu, value, &mut page[slot * value.len()..][..value.len()]);
}
