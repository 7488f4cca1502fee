//! What `fastq doctor` looks at: the machine, and the default model, which only this crate knows.

use fastq_core::doctor::{Finding, Grade, examine as examine_machine};
use fastq_core::machine::Machine;
use fastq_core::{Interrupt, Result};
use serde_json::json;

use crate::default_model::{DEFAULT, cache_folder};

/// All findings, in the order they are shown in.
///
/// # Errors
/// [`Error::Cancelled`](fastq_core::Error::Cancelled).
pub fn examine(interrupt: &dyn Interrupt) -> Result<Vec<Finding>> {
    let mut findings = examine_machine(&Machine::this(), interrupt)?;
    findings.push(default_model());
    Ok(findings)
}

/// Whether the default model is here, and where it would go.
fn default_model() -> Finding {
    match cache_folder() {
        Ok(folder) => {
            let path = folder.join(DEFAULT.file);
            let present = path.is_file();
            let data = json!({ "path": path.display().to_string(), "present": present });
            let text = if present {
                path.display().to_string()
            } else {
                format!("not fetched yet; would be kept at {}", path.display())
            };
            Finding::new("default model", Grade::Ok, text, data)
        }
        Err(error) => Finding::new("default model", Grade::Warning, error.to_string(), json!({})),
    }
}
