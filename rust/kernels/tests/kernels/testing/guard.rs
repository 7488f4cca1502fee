use std::ffi::c_int;

use fastq_kernels::testing::{Guarded, Side};

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// Whether a process dies of a signal when it reads `pointer`.
fn reading_kills(pointer: *const u8) -> bool {
    let mut status = 0;
    // SAFETY: the child calls nothing but `_exit`; that its read may be invalid is the question, and only ends it.
    let child = unsafe {
        let child = fork();
        if child == 0 {
            core::hint::black_box(pointer.read_volatile());
            _exit(0);
        }
        child
    };
    assert!(child > 0, "a process can be started");
    // SAFETY: the child exists until this call, and `status` is writable.
    assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    // The lower seven bits of a status are the signal, on every unix.
    status & 0x7f != 0
}

#[test]
fn holds_the_values_on_both_sides() {
    for side in Side::ALL {
        for len in [0, 1, 3, 1024, 4096, 5000] {
            let expected: Vec<u32> = (0..len).collect();
            let mut guarded = Guarded::new(&expected, side);
            assert_eq!(*guarded, *expected);
            guarded.iter_mut().for_each(|x| *x += 1);
            assert!(guarded.iter().zip(&expected).all(|(a, b)| *a == b + 1));
        }
    }
}

#[test]
fn a_step_beyond_the_guarded_end_kills() {
    for len in [0, 1, 3, 4096, 5000] {
        let values = vec![7u8; len];
        let before = Guarded::new(&values, Side::Before);
        assert!(reading_kills(before.as_ptr().wrapping_sub(1)), "{len}");
        let after = Guarded::new(&values, Side::After);
        assert!(reading_kills(after.as_ptr().wrapping_add(len)), "{len}");
        if len > 0 {
            assert!(!reading_kills(before.as_ptr()), "{len}");
            assert!(!reading_kills(after.as_ptr().wrapping_add(len - 1)), "{len}");
        }
    }
}
