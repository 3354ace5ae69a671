//! What a program may rely on in any POSIX file system, it may rely on in a
//! directory that capio has taken over.

use capio_tests::oracle;

#[test]
fn open_flags_do_and_refuse_what_the_kernel_says() {
    oracle("posix_open");
}

#[test]
fn reads_writes_and_seeks_return_the_bytes_that_were_written() {
    oracle("posix_rw");
}
