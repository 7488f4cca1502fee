//! Ids of tool calls. They follow from the prompt, the place of the call and its name: the same answer has the same ids every
//! time, and the answers of one conversation have different ones, because their prompts differ.

/// Letters and digits of an id of Mistral.
pub(super) const SHORT: usize = 9;
/// Letters and digits of every other id, after `call_`.
const LONG: usize = 24;

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What ids of one answer have in common.
pub(super) fn seed(prompt: &str) -> u64 {
    hash(0xcbf2_9ce4_8422_2325, prompt.as_bytes())
}

/// The id of the call at `index`.
pub(super) fn id(seed: u64, index: usize, name: &str, short: bool) -> String {
    let mut state = hash(hash(seed, name.as_bytes()), &(index as u64).to_le_bytes());
    let mut id = String::from(if short { "" } else { "call_" });
    for _ in 0..if short { SHORT } else { LONG } {
        // SplitMix64 (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2714064.2660195>).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        id.push(char::from(LETTERS[(mixed % 62) as usize]));
    }
    id
}
