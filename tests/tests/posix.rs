//! What a program may rely on in any POSIX file system, it may rely on in a
//! directory that capio has taken over.

use capio_tests::{Step, Workflow, oracle, program};

#[test]
fn open_flags_do_and_refuse_what_the_kernel_says() {
    oracle("posix_open");
}

#[test]
fn reads_writes_and_seeks_return_the_bytes_that_were_written() {
    oracle("posix_rw");
}

#[test]
fn names_links_attributes_and_times_are_those_of_a_local_directory() {
    oracle("posix_names");
}

#[test]
fn extended_attributes_belong_to_the_file_and_say_what_was_set() {
    oracle("posix_xattr");
}

#[test]
fn directories_list_what_is_in_them_and_are_walked_from_anywhere() {
    oracle("posix_dirs");
}

#[test]
fn stdio_buffers_seeks_and_redirects_as_on_disk() {
    oracle("posix_stdio");
}

#[test]
fn descriptors_are_shared_and_locked_between_processes_as_on_disk() {
    oracle("posix_process");
}

/// The walkers print all they see. The order of a directory's entries is the file
/// system's own choice, so lines are sorted, and the walks are left out in which
/// the order decides what is seen (those that stop early, or follow links, or do
/// not sort).
#[test]
fn scandir_glob_ftw_and_fts_see_the_same_tree_in_the_same_way() {
    let walk = program("doors_walk").display().to_string();
    let sort = "awk '/^glob.* flags 4/ { next } /^nftw/ { out = $4 % 2 == 0 || $4 >= 16 } /^ftw/ { out = 1 } /^fts/ { out = 0 } !out' $OUTSIDE/trace | sort > trace.txt";
    Workflow::new("walk")
        .step(
            Step::sh(
                "walk",
                format!("'{walk}' \"$PWD/tree\" > $OUTSIDE/trace && {sort}"),
            )
            .writes(&["*"]),
        )
        .verify();
}

/// The programs that it starts lie outside: one in the cache cannot be started.
#[test]
fn programs_start_programs_and_make_temporary_files_as_on_disk() {
    let spawn = program("doors_spawn").display().to_string();
    let script = format!("mkdir dir $OUTSIDE/dir && exec '{spawn}' \"$PWD/dir\" $OUTSIDE/dir");
    Workflow::new("spawn")
        .step(Step::sh("spawn", script).writes(&["*"]))
        .verify();
}
