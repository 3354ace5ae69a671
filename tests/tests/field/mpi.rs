//! Open MPI with both of its ways of MPI-IO, from four processes.

use crate::{need, script};
use capio_tests::{Step, Workflow};

fn collective(name: &str, io: &str, how: &str) -> Workflow {
    need(&["mpicc", "mpirun"]);
    let run = format!(
        "mpirun --allow-run-as-root --oversubscribe -n 4 --mca io {io} --mca btl self,vader,tcp \
         --mca btl_vader_single_copy_mechanism none --mca plm isolated $OUTSIDE/collective {how} > said"
    );
    let clean = "rm -f numbers.sm blocks.bin.* columns.bin.* ordered.txt.*";
    Workflow::new(name)
        .input(
            "collective.c",
            include_str!("../../programs/field/collective.c"),
        )
        .step(Step::sh("numbers", "seq 1 20000 > numbers").rule(&["numbers"], "on_close", "update"))
        .step(Step::sh(
            "build",
            script("mpicc -O1 -Wall -o $OUTSIDE/collective collective.c"),
        ))
        .step(
            Step::sh("run", script(&format!("{run}\n{clean}")))
                .after("build")
                .reads(&["numbers"])
                .writes(&["said", "blocks.bin", "columns.bin", "ordered.txt"]),
        )
}

#[test]
fn four_processes_write_together_by_ompio() {
    collective("ompio", "ompio", "").verify();
}

/// A thread of libc writes then, which the auditor takes for a miss.
#[test]
fn ompio_writes_while_the_program_goes_on() {
    collective("ompio-later", "ompio", "later")
        .unaudited()
        .verify();
}

#[test]
fn four_processes_write_together_by_romio() {
    collective("romio", "romio321", "later").verify();
}
