//! Codes, messages, and the wall that no panic passes.

use std::any::Any;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use fastq_core::Error;

/// What became of a call. Later versions may add codes: take one that is not here as an error.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum fastq_status {
    /// Done.
    Ok = 0,
    /// A parameter has a wrong value.
    InvalidArgument = 1,
    /// No file at the path.
    NotFound = 2,
    /// The system refused to open or read the file.
    Io = 3,
    /// The model file is no GGUF file, or is malformed, truncated, changed or damaged.
    Format = 4,
    /// A valid model file that this version cannot run.
    Unsupported = 5,
    /// The vocabulary cannot express a text.
    Tokenizer = 6,
    /// The chat template is missing or invalid, or refuses the messages.
    Template = 7,
    /// The prompt is longer than the context.
    Context = 8,
    /// Not enough memory for the model, its context or a result.
    Memory = 9,
    /// The callback or a fastq_cancel ended the call.
    Cancelled = 10,
    /// The session is in use by another generation.
    Busy = 11,
    /// A defect of fastq itself; please report it.
    Internal = 12,
}

/// Bytes of the message of an error, the zero at its end included. A longer message is cut.
pub const FASTQ_MESSAGE_SIZE: usize = 1024;

/// What went wrong. A variable of the caller, which needs neither to be filled before nor to be freed after.
#[repr(C)]
pub struct fastq_error {
    /// What the function returned.
    pub code: fastq_status,
    /// What went wrong, for people; empty when nothing did.
    pub message: [c_char; FASTQ_MESSAGE_SIZE],
}

/// Why a call fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: fastq_status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn argument(message: String) -> Failure {
        Failure { status: fastq_status::InvalidArgument, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::Argument(_) | Error::Grammar(_) => fastq_status::InvalidArgument,
            Error::NotFound(_) => fastq_status::NotFound,
            Error::Io { .. } => fastq_status::Io,
            Error::ModelFile { .. } | Error::Session { .. } | Error::NotFinite(_) => fastq_status::Format,
            Error::UnsupportedModel(_) => fastq_status::Unsupported,
            Error::Tokenizer(_) => fastq_status::Tokenizer,
            Error::Template(_) => fastq_status::Template,
            Error::ContextOverflow(_) => fastq_status::Context,
            Error::Memory(_) => fastq_status::Memory,
            Error::Cancelled => fastq_status::Cancelled,
            _ => fastq_status::Internal,
        };
        Failure { status, message: error.to_string() }
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// Runs the body of a function of the interface and tells its outcome. A panic becomes `Internal`.
///
/// # Safety
/// `error` is null or writable.
pub(crate) unsafe fn guarded(error: *mut fastq_error, body: impl FnOnce() -> Outcome<()>) -> fastq_status {
    // Whatever a panic left half done is not looked at again: bodies keep nothing, and the engine has walls of its own.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    let (status, message) = match outcome {
        Ok(()) => (fastq_status::Ok, String::new()),
        Err(failure) => (failure.status, failure.message),
    };
    // SAFETY: as the caller grants.
    unsafe { tell(error, status, &message) };
    status
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::Internal(format!("a call panicked: {}", text.unwrap_or("no message"))).into()
}

/// # Safety
/// `error` is null or writable.
unsafe fn tell(error: *mut fastq_error, status: fastq_status, message: &str) {
    if error.is_null() {
        return;
    }
    // A zero inside, which a path or a key of a file may have, would hide the rest.
    let message = message.replace('\0', "\u{FFFD}");
    let end = message.floor_char_boundary(FASTQ_MESSAGE_SIZE - 1);
    // SAFETY: the caller grants that the struct is writable, and `end` bytes and a zero fit its message. Nothing is assumed
    // about what is in it or where it begins: the message has no alignment, and the code is written without.
    unsafe {
        (&raw mut (*error).code).write_unaligned(status);
        let to = (&raw mut (*error).message).cast::<u8>();
        ptr::copy_nonoverlapping(message.as_ptr(), to, end);
        to.add(end).write(0);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::path::PathBuf;

    use super::*;

    fn told(body: impl FnOnce() -> Outcome<()>) -> (fastq_status, String) {
        let mut error = fastq_error { code: fastq_status::Busy, message: [1; FASTQ_MESSAGE_SIZE] };
        // SAFETY: the struct is a variable.
        let status = unsafe { guarded(&mut error, body) };
        assert_eq!(error.code, status);
        // SAFETY: `guarded` has ended the message with a zero.
        let message = unsafe { CStr::from_ptr(error.message.as_ptr()) };
        (status, message.to_str().expect("a message is UTF-8").to_owned())
    }

    #[test]
    fn a_panic_ends_at_the_wall() {
        let (status, message) = told(|| panic!("number {}", 7));
        assert_eq!(status, fastq_status::Internal);
        assert!(message.contains("a call panicked: number 7"), "{message}");
        // SAFETY: null is allowed.
        assert_eq!(unsafe { guarded(ptr::null_mut(), || panic!("untold")) }, fastq_status::Internal);
    }

    #[test]
    fn success_empties_the_message() {
        assert_eq!(told(|| Ok(())), (fastq_status::Ok, String::new()));
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_zeros_do_not_end_it() {
        for shift in 0..4 {
            let long = format!("{}{}", "x".repeat(shift), "€".repeat(FASTQ_MESSAGE_SIZE));
            let (_, message) = told(|| Err(Failure::argument(long.clone())));
            assert!(long.starts_with(&message));
            assert!((FASTQ_MESSAGE_SIZE - 3..FASTQ_MESSAGE_SIZE).contains(&message.len()), "{}", message.len());
        }
        assert_eq!(told(|| Err(Failure::argument("a\0b".into()))).1, "a\u{FFFD}b");
    }

    #[test]
    fn every_error_of_the_engine_has_its_code() {
        let path = || PathBuf::from("p");
        let text = || "x".to_owned();
        let io = Error::Io { path: path(), source: std::io::Error::other("x") };
        let cases = [
            (Error::NotFound(path()), fastq_status::NotFound),
            (io, fastq_status::Io),
            (Error::ModelFile { path: path(), offset: None, what: text() }, fastq_status::Format),
            (Error::Session { path: path(), offset: None, what: text() }, fastq_status::Format),
            (Error::NotFinite(text()), fastq_status::Format),
            (Error::UnsupportedModel(text()), fastq_status::Unsupported),
            (Error::Tokenizer(text()), fastq_status::Tokenizer),
            (Error::Template(text()), fastq_status::Template),
            (Error::ContextOverflow(text()), fastq_status::Context),
            (Error::Cancelled, fastq_status::Cancelled),
            (Error::Memory(text()), fastq_status::Memory),
            (Error::Argument(text()), fastq_status::InvalidArgument),
            (Error::Internal(text()), fastq_status::Internal),
        ];
        for (error, status) in cases {
            let message = error.to_string();
            assert_eq!(told(|| Err(error.into())), (status, message));
        }
    }
}
