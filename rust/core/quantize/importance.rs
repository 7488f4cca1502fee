//! How much the inputs of a matrix matter, for quantizers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::gguf::TensorInfo;
use crate::imatrix::Imatrix;
use crate::{Error, Interrupt, Result};

/// An importance matrix, and what it is called in the file that it helped to make.
#[derive(Clone, PartialEq, Debug)]
pub struct Importance {
    /// Its file, as the caller named it.
    pub file: String,
    /// The values.
    pub matrix: Imatrix,
}

impl Importance {
    /// Reads it from a file (GGUF or the older binary format).
    ///
    /// # Errors
    /// As [`Imatrix::open`]; [`Error::ModelFile`] also for values that are not finite.
    pub fn open(path: &Path, interrupt: &dyn Interrupt) -> Result<Importance> {
        let importance = Importance { file: path.display().to_string(), matrix: Imatrix::open(path, interrupt)? };
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        match importance.matrix.entries.iter().find(|(_, entry)| !finite(&entry.sums) || !finite(&entry.counts)) {
            None => Ok(importance),
            Some((name, _)) => {
                let what = format!("the entry {name:?} has values that are not finite; calibrate again");
                Err(Error::ModelFile { path: path.into(), offset: None, what })
            }
        }
    }

    /// Mean squares `(experts, k)` of the inputs of a tensor; `None` when it is not in the matrix.
    ///
    /// # Errors
    /// [`Error::Argument`] when they are of another number of inputs.
    pub(super) fn of(&self, tensor: &TensorInfo) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.matrix.entries.get(&tensor.name) else { return Ok(None) };
        let wrong = |what: String| {
            let (name, file) = (&tensor.name, &self.file);
            Error::Argument(format!(
                "{file}: {what} for tensor {name:?} of shape {:?}; it was made of another model",
                tensor.shape
            ))
        };
        let k = usize::try_from(tensor.k()).map_err(|_| wrong("it has too few inputs".into()))?;
        let experts = tensor.shape.get(2).copied().unwrap_or(1);
        let entry = entry
            .clone()
            .for_rows(&tensor.name, k)
            .map_err(|_| wrong(format!("the importance matrix has {} inputs", entry.sums.len())))?;
        if entry.counts.len() as u64 != experts {
            return Err(wrong(format!("the importance matrix has {} experts", entry.counts.len())));
        }
        Ok(Some((0..entry.counts.len()).flat_map(|expert| entry.importance(expert)).collect()))
    }

    /// Tells it from others.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, entry) in &self.matrix.entries {
            name.hash(&mut hasher);
            for values in [&entry.sums, &entry.counts] {
                values.len().hash(&mut hasher);
                values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
            }
        }
        hasher.finish()
    }
}
