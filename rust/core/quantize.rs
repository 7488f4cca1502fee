//! Makes files smaller.

mod overrides;
mod preset;
mod recipe;

pub use overrides::Overrides;
pub use preset::{Preset, Target, tensor_format};
