//! Counter-based random numbers: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (SC 2011, <https://doi.org/10.1145/2063384.2063405>). A number is a function of key and counter, so a token's
//! draw does not depend on what else was drawn before it.

/// The ten-round Philox bijection of a counter under a key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    // Multipliers and Weyl increments of the paper, §3.4 and table 2.
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(INCREMENTS[0]), key[1].wrapping_add(INCREMENTS[1])];
        }
        let product = [MULTIPLIERS[0] * u64::from(counter[0]), MULTIPLIERS[1] * u64::from(counter[2])];
        counter = [
            (product[1] >> 32) as u32 ^ counter[1] ^ key[0],
            product[1] as u32,
            (product[0] >> 32) as u32 ^ counter[3] ^ key[1],
            product[0] as u32,
        ];
    }
    counter
}

/// A number in [0, 1) with 53 random bits, for one (seed, position).
pub fn uniform(seed: u64, position: u64) -> f64 {
    uniform_of(0, seed, position)
}

/// The number of another stream: what draws beside the token's own number takes one that is independent of it.
pub fn uniform_of(stream: u32, seed: u64, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, stream, 0];
    let words = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A seed that differs from call to call and from process to process, below 2^53 so that JSON carries it unchanged.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library keys its hash maps with random numbers of the system.
    RandomState::new().build_hasher().finish() >> 11
}
