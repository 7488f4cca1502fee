//! Matrices of a source that are floats, as bytes with scales: the model answers all but the same, many times as fast.

use std::collections::HashMap;

use fastq_kernels::{Cpu, Format};

use super::encode::searched;
use super::plan::{Plan, PlannedTensor};
use crate::model::{Model, Replacement};
use crate::pool::Pool;
use crate::{Interrupt, Result};

const FORMAT: Format = Format::Q8_0;

/// The data of those matrices for which `is_wanted` holds.
///
/// # Errors
/// Those of reading; [`Error::Memory`](crate::Error::Memory); [`Error::Cancelled`](crate::Error::Cancelled).
pub(super) fn replacements(
    plan: &Plan<'_>,
    is_wanted: impl Fn(&PlannedTensor) -> bool,
    (pool, cpu): (&mut Pool, Cpu),
    interrupt: &dyn Interrupt,
) -> Result<HashMap<String, Replacement>> {
    let mut all = HashMap::new();
    for (index, tensor) in plan.tensors().iter().enumerate() {
        let floats = tensor.info.ty.block() == 1 && tensor.info.k().is_multiple_of(FORMAT.info().block as u64);
        if plan.is_quantizable(index) && floats && is_wanted(tensor) {
            let data = searched(plan.source(), &tensor.info, FORMAT, None, (pool, cpu), interrupt)?;
            all.insert(tensor.info.name.clone(), data);
        }
    }
    Ok(all)
}

/// `source`, which is the model of the plan's file, with all of them replaced.
///
/// # Errors
/// As for [`replacements`].
pub(super) fn model(plan: &Plan<'_>, source: &Model, on: (&mut Pool, Cpu), interrupt: &dyn Interrupt) -> Result<Model> {
    source.with_replaced(&replacements(plan, |_| true, on, interrupt)?)
}
