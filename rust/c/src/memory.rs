//! Memory that is handed out. It comes from `malloc`: so a caller frees it without telling a size, and none left is an error.

use std::ffi::c_void;
use std::ptr;

use fastq_core::memory::human;

use crate::status::{Failure, Outcome, fastq_status};

/// Frees what a function gave out: a completion, tokens or text. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_free(memory: *mut c_void) {
    // SAFETY: null, or from `allocate`, as the caller grants.
    unsafe { libc::free(memory) };
}

/// At least `bytes` bytes, aligned for every type of the interface.
fn allocate(bytes: usize) -> Outcome<*mut u8> {
    // SAFETY: malloc takes any size. One byte at least, because null would mean failure.
    let memory = unsafe { libc::malloc(bytes.max(1)) };
    if memory.is_null() {
        let message = format!("the system has no {} for a result", human(bytes as u64));
        return Err(Failure { status: fastq_status::Memory, message });
    }
    Ok(memory.cast())
}

/// A value with an array and a text behind it, in one piece of memory that one `fastq_free` frees. `value` is given the addresses of
/// the array and of the text, which ends with a zero that does not count.
pub(crate) fn hand_out<T, U: Copy>(
    items: &[U],
    text: &str,
    value: impl FnOnce(*mut U, *mut u8) -> T,
) -> Outcome<*mut T> {
    // What malloc grants everywhere.
    const { assert!(align_of::<T>() <= 8 && align_of::<U>() <= 8 && size_of::<T>().is_multiple_of(align_of::<U>())) };
    let bytes = size_of_val(items).checked_add(text.len()).and_then(|bytes| bytes.checked_add(size_of::<T>() + 1));
    let start = allocate(bytes.ok_or_else(|| Failure::argument("the result is larger than memory".into()))?)?;
    // SAFETY: the parts follow each other and together have the bytes that were allocated. malloc aligns for the value, whose
    // size is a multiple of what the items need.
    unsafe {
        let array = start.add(size_of::<T>()).cast::<U>();
        ptr::copy_nonoverlapping(items.as_ptr(), array, items.len());
        let letters = array.add(items.len()).cast::<u8>();
        ptr::copy_nonoverlapping(text.as_ptr(), letters, text.len());
        letters.add(text.len()).write(0);
        start.cast::<T>().write(value(array, letters));
    }
    Ok(start.cast())
}
