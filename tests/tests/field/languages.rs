//! The languages that science is written in: their run-time libraries, and where it
//! is natural their compilers, too.

use crate::{need, script};
use capio_tests::{Step, Workflow};

/// `numbers`, which the others read while it is written.
fn numbers() -> Step {
    Step::sh("numbers", "seq 1 3 30000 > numbers").rule(&["numbers"], "on_close", "no_update")
}

/// `table.csv` of another step.
fn table() -> Step {
    let lines = r#"BEGIN { print "station,number,value"; for (i = 1; i <= 3000; i++) print substr("abcd", i % 4 + 1, 1) "," i "," (i * 7919) % 1009 }"#;
    let command = format!("awk '{lines}' > table.csv");
    Step::sh("table", command).rule(&["table.csv"], "on_close", "no_update")
}

#[test]
fn java_channels_maps_and_archives() {
    need(&["java", "javac", "jar"]);
    let java = "-XX:-UsePerfData -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=$TMPDIR";
    let run = format!(
        "seq 1 2000 > lines; mkdir classes; javac -J-XX:-UsePerfData -d classes Nio.java
         java {java} -Xshare:auto -cp classes Nio > said
         jar --create --date=2000-01-01T00:00:00Z --file nio.jar -C classes Nio.class
         mkdir again; cp lines again; cd again; java {java} -cp ../nio.jar Nio > said"
    );
    Workflow::new("java")
        .input("Nio.java", include_str!("../../programs/field/Nio.java"))
        .step(Step::sh("java", script(&run)))
        .verify();
}

#[test]
fn java_runs_a_source_file_that_reads_another_steps_lines() {
    need(&["java"]);
    let source = r#"
import java.nio.file.*;
public class Sum {
    public static void main(String[] arguments) throws Exception {
        long sum;
        try (var lines = Files.lines(Path.of("numbers"))) { sum = lines.mapToLong(Long::parseLong).sum(); }
        Files.writeString(Path.of("sum"), sum + "\n");
    }
}
"#;
    let run = "java -XX:-UsePerfData -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=$TMPDIR Sum.java";
    Workflow::new("java-source")
        .input("Sum.java", source)
        .step(numbers())
        .step(
            Step::sh("sum", script(run))
                .reads(&["numbers"])
                .writes(&["sum"]),
        )
        .verify();
}

#[test]
fn fortran_reads_and_writes_by_every_access() {
    need(&["gfortran"]);
    let build = "gfortran -O1 -fintrinsic-modules-path . -o program access.f90";
    Workflow::new("fortran")
        .input(
            "access.f90",
            include_str!("../../programs/field/access.f90"),
        )
        .step(numbers())
        .step(Step::sh("build", script(build)).rule(&["program"], "on_termination", "update"))
        .step(
            Step::sh("run", script("./program > said"))
                .reads(&["program", "numbers"])
                .writes(&["said"]),
        )
        .verify();
}

#[test]
fn perl_files_in_many_ways() {
    need(&["perl"]);
    Workflow::new("perl")
        .input("files.pl", include_str!("../../programs/field/files.pl"))
        .step(numbers())
        .step(
            Step::sh("perl", script("perl files.pl > said"))
                .reads(&["numbers"])
                .writes(&["said"]),
        )
        .verify();
}

#[test]
fn r_tables_objects_connections_and_plots() {
    need(&["Rscript"]);
    Workflow::new("r")
        .input("files.R", include_str!("../../programs/field/files.R"))
        .step(table())
        .step(
            Step::sh("r", script("Rscript --vanilla files.R > said"))
                .reads(&["table.csv"])
                .writes(&["said"]),
        )
        // R and tar note when they were written.
        .ignoring("tree.tar")
        .verify();
}

#[test]
fn octave_saves_and_loads_all_its_formats() {
    need(&["octave-cli"]);
    Workflow::new("octave")
        .input("files.m", include_str!("../../programs/field/files.m"))
        .step(table())
        .step(
            Step::sh(
                "octave",
                script("octave-cli --norc --no-history files.m > said"),
            )
            .reads(&["table.csv"])
            .writes(&["said"]),
        )
        // They tell when they were made; the program itself compares what it reads.
        .ignoring("all.h5")
        .ignoring("all6.mat")
        .ignoring("all7.mat")
        .verify();
}

#[test]
fn rust_is_compiled_and_run_in_the_directory() {
    need(&["cargo"]);
    let manifest = "[package]\nname = \"files\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[[bin]]\nname = \"files\"\npath = \"files.rs\"\n[workspace]\n";
    // The compiler lies where the user's own directory says.
    let cargo = "CARGO_HOME=\"$TMPDIR/cargo\" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=\"$PWD/target\" \"${CARGO:-cargo}\" build -q --offline; cp target/debug/files program; rm -rf target";
    let build = script(cargo).replace("HOME=\"$PWD\" ", "");
    Workflow::new("rust")
        .input("Cargo.toml", manifest)
        .input("files.rs", include_str!("../../programs/field/files.rs"))
        .step(numbers())
        .step(Step::sh("build", build).rule(&["program"], "on_termination", "update"))
        .step(
            Step::sh("run", script("./program > said; rm program"))
                .reads(&["program", "numbers"])
                .writes(&["said"]),
        )
        // The loader looks into directories of the session for libraries that lie
        // elsewhere, as cargo names them in LD_LIBRARY_PATH.
        .unaudited()
        .verify();
}
