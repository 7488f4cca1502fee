//! Generation: prompts in, pieces of text out.
/// c
pub struct Completion {}
/// c
pub struct FinishReason {}
/// c
pub struct Generation {}
/// c
pub struct GenerationOptions {}
/// c
pub struct Piece {}
/// c
pub struct Prompt {}
