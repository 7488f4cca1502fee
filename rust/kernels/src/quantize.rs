//! Better integers on the grids of scalar formats and codebooks: search for scales, and compensation of errors along the row.
//!
//! Sixteen rows are quantized at once; a lane is a row (`lanes.rs`). All sums run in column order within a lane, without fused
//! multiplication and addition, so the bytes are the same on every level and for any split of the rows over threads.

mod cholesky;
mod codebook;
mod feedback;
mod fit;
mod lanes;
mod loss;
mod search;

pub use cholesky::{Parallel, inverse_factor};
pub use feedback::{Feedback, feedback};
pub use lanes::LANES as ROWS;
pub use loss::loss;
pub use search::search;
