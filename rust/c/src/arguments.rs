//! What callers pass, looked at before it is used: null, alignment, UTF-8, counts, sizes of structs.

use std::ffi::{CStr, OsStr, c_char};
use std::fmt::Display;
use std::path::Path;
use std::{ptr, slice};

use crate::status::{Failure, Outcome};

/// Structs larger than this cannot be meant: more likely the size was never set.
const MOST_BYTES: usize = 1 << 16;

/// A pointer that is neither null nor misaligned.
pub(crate) fn pointer<T>(pointer: *const T, name: impl Display) -> Outcome<*const T> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{name} must not be NULL")));
    }
    if !pointer.is_aligned() {
        let (align, found) = (align_of::<T>(), pointer.addr());
        return Err(Failure::argument(format!("{name} must be aligned to {align} bytes, found {found:#x}")));
    }
    Ok(pointer)
}

/// A handle that the interface gave out.
///
/// # Safety
/// `handle` is null or such a handle, not yet freed for as long as the reference is used.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, name: impl Display) -> Outcome<&'a T> {
    // SAFETY: not null, aligned, and alive as the caller grants.
    pointer(handle, name).map(|handle| unsafe { &*handle })
}

/// A handle that may be null.
///
/// # Safety
/// As [`handle`].
pub(crate) unsafe fn optional<'a, T>(pointer: *const T, name: impl Display) -> Outcome<Option<&'a T>> {
    // SAFETY: as the caller grants.
    if pointer.is_null() { Ok(None) } else { unsafe { handle(pointer, name) }.map(Some) }
}

/// A place for a result, which is set to `empty`, so that a call that fails leaves nothing there.
///
/// # Safety
/// `place` is null or writable.
pub(crate) unsafe fn place<'a, T>(place: *mut T, empty: T, name: impl Display) -> Outcome<&'a mut T> {
    pointer(place, name)?;
    // SAFETY: not null and aligned; the caller grants that it is writable. It is written before there is a reference to it.
    unsafe {
        place.write(empty);
        Ok(&mut *place)
    }
}

/// Text that ends with a zero.
///
/// # Safety
/// `text` is null or points to bytes that end with a zero and live as long as the reference.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: impl Display) -> Outcome<&'a str> {
    pointer(text, &name)?;
    // SAFETY: not null, and ends with a zero as the caller grants.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|error| Failure::argument(format!("{name} is not UTF-8 at byte {}", error.valid_up_to())))
}

/// A path: any bytes on Unix, UTF-8 elsewhere.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char, name: &str) -> Outcome<&'a Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        pointer(path, name)?;
        // SAFETY: not null, and ends with a zero as the caller grants.
        Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as the caller grants.
        unsafe { text(path, name) }.map(|path| Path::new(OsStr::new(path)))
    }
}

/// An array.
///
/// # Safety
/// `items` is null or points to `count` items that live as long as the reference.
pub(crate) unsafe fn array<'a, T>(items: *const T, count: usize, name: impl Display) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    pointer(items, &name)?;
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::argument(format!("{name} cannot have {count} items: that is more than memory can hold")));
    }
    // SAFETY: not null, aligned, no larger than an object can be; the caller grants that the items are there.
    Ok(unsafe { slice::from_raw_parts(items, count) })
}

/// Refuses flags that this version does not know.
pub(crate) fn flags(flags: u32, known: u32, name: &str) -> Outcome<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Failure::argument(format!("{name} has flags that are not known: {unknown:#x}"))),
    }
}

/// A struct with options. Its first field is its size, as the program knows it.
///
/// # Safety
/// `repr(C)`, the first field is the size as a `usize`, any bytes are a value, and there is no padding at the end, where a later
/// version puts its fields.
pub(crate) unsafe trait Options: Copy + Default {
    /// What the parameter is called.
    const NAME: &'static str;
    /// The bytes of its first version.
    const FIRST: usize;
}

/// Fills a struct of `size` bytes with defaults. What a later version has at its end becomes zero, which [`read`] lets pass.
///
/// # Safety
/// `options` is null or has `size` writable bytes.
pub(crate) unsafe fn init<T: Options>(options: *mut T, size: usize) {
    if options.is_null() {
        return;
    }
    let defaults = T::default();
    let known = size.min(size_of::<T>());
    let to = options.cast::<u8>();
    // SAFETY: the caller grants `size` bytes; of the defaults no more than they have is copied.
    unsafe {
        to.write_bytes(0, size);
        ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), to, known);
        if let Some(at) = size.checked_sub(size_of::<usize>()).map(|_| to.cast::<usize>()) {
            at.write_unaligned(size);
        }
    }
}

/// The options of a struct that [`init`] has filled, perhaps that of an older or a later version of the library. A field that this
/// version does not know must be zero: to ignore it would be to do something else than what was asked for.
///
/// # Safety
/// `options` is null, or its first field and as many bytes as that says are readable.
pub(crate) unsafe fn read<T: Options>(options: *const T) -> Outcome<T> {
    let name = T::NAME;
    let from = pointer(options, name)?.cast::<u8>();
    // SAFETY: aligned, and every struct of options begins with its size.
    let size = unsafe { from.cast::<usize>().read() };
    if !(T::FIRST..=MOST_BYTES).contains(&size) {
        let message = format!("{name}.size must be at least {}, found {size}; call fastq_{name}_init first", T::FIRST);
        return Err(Failure::argument(message));
    }
    let mut known = T::default();
    let there = size.min(size_of::<T>());
    // SAFETY: the caller grants `size` bytes, any of which are a value, and `there` is no more than either struct has.
    let rest = unsafe {
        ptr::copy_nonoverlapping(from, (&raw mut known).cast::<u8>(), there);
        slice::from_raw_parts(from.add(there), size - there)
    };
    match rest.iter().position(|&byte| byte != 0) {
        None => Ok(known),
        Some(at) => Err(Failure::argument(format!(
            "{name} has a value at byte {}, which fastq {} does not know: the program was compiled with a later one",
            there + at,
            env!("CARGO_PKG_VERSION"),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    struct Now {
        size: usize,
        one: usize,
        two: usize,
    }

    impl Default for Now {
        fn default() -> Now {
            Now { size: size_of::<Now>(), one: 11, two: 22 }
        }
    }

    // SAFETY: three integers of the same size.
    unsafe impl Options for Now {
        const NAME: &'static str = "request";
        const FIRST: usize = 2 * size_of::<usize>();
    }

    fn read_words(words: &[usize]) -> Outcome<Now> {
        // SAFETY: the first word is the size of the words, or smaller than allowed.
        unsafe { read(words.as_ptr().cast::<Now>()) }
    }

    #[test]
    fn structs_of_other_versions_are_understood() {
        const W: usize = size_of::<usize>();
        let earlier = read_words(&[2 * W, 5]).expect("the first version");
        assert_eq!((earlier.one, earlier.two), (5, 22));
        let later = read_words(&[4 * W, 5, 6, 0]).expect("a later version that asks for nothing new");
        assert_eq!((later.one, later.two), (5, 6));
        let message = read_words(&[4 * W, 5, 6, 7]).expect_err("a later version that does").message;
        assert!(message.contains(&format!("at byte {}", 3 * W)), "{message}");
        for size in [0, W, 2 * W - 1, MOST_BYTES + 1] {
            let message = read_words(&[size, 5, 6, 7]).expect_err("no size of any version").message;
            assert!(message.contains("request.size") && message.contains("fastq_request_init"), "{message}");
        }
    }

    #[test]
    fn structs_of_other_versions_are_filled() {
        const W: usize = size_of::<usize>();
        let filled = |words: usize| {
            let mut memory = [99usize; 5];
            // SAFETY: five words are there, and at most four are filled.
            unsafe { init(memory.as_mut_ptr().cast::<Now>(), words * W) };
            memory
        };
        assert_eq!(filled(4), [4 * W, 11, 22, 0, 99]);
        assert_eq!(filled(3), [3 * W, 11, 22, 99, 99]);
        assert_eq!(filled(2), [2 * W, 11, 99, 99, 99]);
        assert_eq!(filled(0), [99; 5]);
        // SAFETY: null is allowed.
        unsafe { init(ptr::null_mut::<Now>(), 3 * W) };
    }

    #[test]
    fn pointers_are_looked_at() {
        let words = [0usize; 2];
        let odd = words.as_ptr().cast::<u8>().wrapping_add(1).cast::<usize>();
        let message = pointer(odd, "place").expect_err("misaligned").message;
        assert!(message.starts_with("place must be aligned to"), "{message}");
        // SAFETY: refused before any item is looked at.
        let message = unsafe { array(words.as_ptr(), usize::MAX, "request.tokens") }.expect_err("too many").message;
        assert!(message.contains("request.tokens cannot have"), "{message}");
        // SAFETY: no item is looked at.
        assert!(unsafe { array(ptr::null::<u32>(), 0, "request.tokens") }.is_ok_and(<[u32]>::is_empty));
    }
}
