//! What is kept from one answer for the next.

use std::ptr;
use std::sync::{Mutex, MutexGuard, TryLockError};

use fastq_core::Model;
use fastq_core::generate::Kept;

use crate::arguments::place;
use crate::model::{fastq_model, model_of};
use crate::status::{Failure, Outcome, fastq_error, fastq_status, guarded};

/// The memory of a conversation: a request that has it computes only what its prompt does not have in common with the prompt and the
/// answer before. The texts are the same as without. Keeps pages of the model's KV cache as long as it lives.
pub struct fastq_session {
    model: Model,
    kept: Mutex<Option<Kept>>,
}

impl fastq_session {
    /// What is kept, for a generation with `model` alone.
    pub(crate) fn begin(&self, model: &Model) -> Outcome<MutexGuard<'_, Option<Kept>>> {
        if !ptr::eq(self.model.info(), model.info()) {
            return Err(Failure::argument("request.session is one of another model".into()));
        }
        match self.kept.try_lock() {
            Ok(kept) => Ok(kept),
            // What a call that panicked had not put back is only computed again.
            Err(TryLockError::Poisoned(kept)) => Ok(kept.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure {
                status: fastq_status::Busy,
                message: "request.session is in use by another generation; give each conversation its own".into(),
            }),
        }
    }
}

/// A new session that remembers nothing. End it with fastq_session_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_session_new(
    model: *const fastq_model,
    session: *mut *mut fastq_session,
    error: *mut fastq_error,
) -> fastq_status {
    let create = || {
        // SAFETY: both pointers are null or what the header says, as the caller grants.
        let (session, model) = unsafe { (place(session, ptr::null_mut(), "session")?, model_of(model)?) };
        *session = Box::into_raw(Box::new(fastq_session { model, kept: Mutex::new(None) }));
        Ok(())
    };
    // SAFETY: as the caller grants.
    unsafe { guarded(error, create) }
}

/// Ends a session, which no call uses any more. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_session_free(session: *mut fastq_session) {
    if !session.is_null() {
        // SAFETY: from `fastq_session_new`, freed once, as the caller grants.
        drop(unsafe { Box::from_raw(session) });
    }
}
