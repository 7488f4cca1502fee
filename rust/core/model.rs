//! A loaded model.
/// A loaded model.
pub struct Model {}
/// Options.
pub struct LoadOptions {}
