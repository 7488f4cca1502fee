//! Which library this is.

use std::ffi::c_char;

/// Counts the versions of this interface. It grows when something is added; what is there stays as it is.
pub const FASTQ_API_VERSION: u32 = 1;

/// The FASTQ_API_VERSION of the library, which may be another one than that of the header. A program runs with every
/// library whose version is at least the one it was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn fastq_api_version() -> u32 {
    FASTQ_API_VERSION
}

/// The version of fastq, such as "0.1.0". Belongs to the library.
#[unsafe(no_mangle)]
pub extern "C" fn fastq_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
