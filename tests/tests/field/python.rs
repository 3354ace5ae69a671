//! Python with the libraries that data people use.

use crate::{need, script};
use capio_tests::{Step, Workflow};

const PACKAGES: &str = "/usr/lib/python3/dist-packages";

fn need_packages(packages: &[&str]) {
    let paths: Vec<String> = packages
        .iter()
        .map(|package| format!("{PACKAGES}/{package}"))
        .collect();
    need(&paths.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn arrays_tables_and_pictures_of_one_step_are_changed_by_the_next() {
    need_packages(&["numpy", "pandas", "h5py", "netCDF4", "PIL"]);
    let made = [
        "*.npy",
        "*.npz",
        "*.raw",
        "grid.txt",
        "table.*",
        "objects.pkl",
        "*.h5",
        "*.nc",
        "picture.*",
    ];
    let make = "export OPENBLAS_NUM_THREADS=1; /usr/bin/python3 -B arrays.py make";
    let used = "export OPENBLAS_NUM_THREADS=1; /usr/bin/python3 -B arrays.py use > used.txt";
    Workflow::new("arrays")
        .input("arrays.py", include_str!("../../programs/field/arrays.py"))
        .step(Step::sh("make", script(make)).rule(&made, "on_termination", "update"))
        .step(
            Step::sh("use", script(used))
                .reads(&made)
                .writes(&["used.txt"]),
        )
        .verify();
}

#[test]
fn pandas_sums_up_a_table_that_is_still_written() {
    need_packages(&["numpy", "pandas"]);
    let write = r#"
import random, time
random.seed(3)
with open("table.csv", "w") as file:
    print("station,value", file=file)
    for i in range(30000):
        print(random.choice("abcd"), random.randrange(1000), sep=",", file=file)
        if i % 5000 == 0: file.flush()
"#;
    let read = r#"
import pandas
total = 0
for chunk in pandas.read_csv("table.csv", chunksize=1000):
    total += chunk["value"].sum()
with open("total", "w") as file: print(total, file=file)
pandas.read_csv("table.csv").groupby("station").describe().to_csv("described.csv")
"#;
    Workflow::new("table")
        .step(
            Step::exec("write", &["/usr/bin/python3", "-c", write]).rule(
                &["table.csv"],
                "on_close",
                "no_update",
            ),
        )
        .step(
            Step::exec("read", &["/usr/bin/python3", "-c", read])
                .reads(&["table.csv"])
                .writes(&["total", "described.csv"]),
        )
        .verify();
}

#[test]
fn worker_processes_share_maps_locks_and_databases() {
    Workflow::new("workers")
        .input(
            "workers.py",
            include_str!("../../programs/field/workers.py"),
        )
        .step(
            Step::sh("work", script("/usr/bin/python3 -B workers.py > said"))
                .writes(&["said", "parts", "mapped"]),
        )
        .verify();
}
