//! Masks for the shuffle of bytes that the x86 levels share.

/// A shuffle mask that moves bytes of each dword and clears where -1 is; and such masks by the byte `b` that [`BYTE`] stands
/// for.
pub(super) const fn gather(bytes: [i8; 4], b: i8) -> [i8; 16] {
    let mut mask = [-1; 16];
    let mut i = 0;
    while i < 16 {
        if bytes[i % 4] >= 0 {
            mask[i] = (i / 4 * 4) as i8 + if bytes[i % 4] == BYTE { b } else { bytes[i % 4] };
        }
        i += 1;
    }
    mask
}

/// A byte that is chosen later.
pub(super) const BYTE: i8 = 4;

/// The masks for each byte in the place of [`BYTE`]: a table, so that a byte that is not known when compiling costs nothing.
pub(super) const fn choices(bytes: [i8; 4]) -> [[i8; 16]; 4] {
    [gather(bytes, 0), gather(bytes, 1), gather(bytes, 2), gather(bytes, 3)]
}
