//! Extended attributes, access lists, and rarer calls, as command-line tools make them.

use crate::{need, script};
use capio_tests::{Step, Workflow};

#[test]
fn access_lists_and_attributes_go_with_copies_archives_and_moves() {
    need(&["setfacl", "getfacl", "setfattr", "getfattr", "tar"]);
    let make = r#"
        mkdir -p lab/runs; seq 100 > lab/runs/raw; cp lab/runs/raw lab/plain; chmod 640 lab/plain
        setfacl -m u:nobody:rw,g:daemon:r lab/runs/raw; setfacl -m d:u:nobody:rwx lab/runs
        setfattr -n user.origin -v 'lane 1' lab/runs/raw; setfattr -n user.empty lab/runs/raw; setfattr -n user.kind -v folder lab/runs"#;
    let copy = r#"
        cp -p lab/runs/raw kept; cp -a lab archive; cp lab/runs/raw bare; cp --preserve=xattr lab/runs/raw named
        mv lab/runs/raw lab/moved; getfacl -c lab/moved kept bare named lab/runs archive/runs > lists
        getfattr -d -m - lab/moved kept bare named archive/runs archive/runs/raw > attributes 2> said
        getfattr --only-values -n user.origin named > value; ls -l kept bare | cut -c 1-11 > listed; ls -ld archive/runs | cut -c 1-11 >> listed
        setfacl -x u:nobody kept; setfacl -b bare; setfacl -m m::r named; getfacl -cE kept bare named >> lists
        chmod 600 kept; getfacl -c kept >> lists; find archive | sort | getfacl -c - > backup; getfacl -c named | setfacl --set-file=- lab/plain
        getfacl kept | setfacl --set-file=- bare; getfacl -c bare >> lists
        setfattr -x user.empty lab/moved; setfattr -x user.none lab/moved 2> missing || true; getfattr -n user.empty lab/moved 2>> missing || true
        setfattr -x user.empty archive/runs/raw; tar -c --xattrs --acls --sort=name --mtime=@0 --pax-option=exthdr.name=%d/x/%f,delete=atime,delete=ctime -f all.tar archive
        mkdir out; tar -x --xattrs --acls -p -C out -f all.tar; find out | sort | getfacl -c - > unpacked; getfattr -d -m user out/archive/runs out/archive/runs/raw > unpacked.attributes
        install -m 600 kept installed; rm -r archive"#;
    Workflow::new("lists")
        .step(Step::sh("make", script(make)).rule(
            &["lab/runs/raw", "lab/plain", "lab", "lab/runs"],
            "on_termination",
            "update",
        ))
        .step(
            Step::sh("copy", script(copy))
                .reads(&["lab/runs/raw", "lab/plain", "lab", "lab/runs"])
                .writes(&["kept", "bare", "named"]),
        )
        .verify();
}

#[test]
fn mapped_tables_grow_and_names_are_exchanged() {
    need(&["gcc"]);
    Workflow::new("calls")
        .input("calls.c", include_str!("../../programs/field/calls.c"))
        .step(Step::sh(
            "calls",
            script("gcc -O1 -Wall -o calls calls.c; ./calls > said; rm calls"),
        ))
        .verify();
}
