//! Shell redirection shares one offset between programs, as on a local disk.

use capio_tests::{Step, Workflow};

fn shell(name: &str, script: &str) {
    Workflow::new(name)
        .step(Step::sh("shell", script).writes(&["*"]))
        .verify();
}

#[test]
fn the_output_of_a_group_stands_one_after_the_other() {
    shell(
        "group",
        "(echo a; cat /etc/hostname > /dev/null; echo b; sh -c 'echo c; echo d') > f; { printf 1; printf 2; } > g",
    );
}

#[test]
fn appending_never_overwrites() {
    shell(
        "append",
        "echo 1 > f; echo 2 >> f; (echo 3; echo 4) >> f; for i in 5 6 7; do echo $i; done >> f; sh -c 'echo 8' >> f",
    );
}

#[test]
fn programs_that_share_an_input_go_on_where_the_other_stopped() {
    shell(
        "input",
        "seq 1 10 > f; { read a; read b; echo \"$a$b\"; } < f > g; while read n; do echo \"<$n>\"; done < f > h; \
         { read a; sh -c 'read b; echo $b'; read c; echo $c; } < f > i; sort -n < f > j; cat - f < f > k",
    );
}

#[test]
fn errors_and_output_go_to_one_file_in_order() {
    shell(
        "both",
        "{ echo out; echo err >&2; ls -d . /none; echo end; } > f 2>&1 || true; sed -i 's/ls: .*/ls/' f; sh -c 'echo x >&2' 2>> f",
    );
}

#[test]
fn descriptors_opened_by_exec_are_inherited() {
    shell(
        "exec",
        "exec 3> f 4>> g; echo one >&3; sh -c 'echo two >&3; echo three >&4'; exec 3>&-; \
         exec 5< f; read a <&5; cat <&5 > rest; exec 5<> f; echo ONE >&5; exec 5>&-; exec > all; echo to all; pwd | sed 's,.*/,,'",
    );
}

#[test]
fn background_jobs_append_whole_lines() {
    shell(
        "jobs",
        "for i in 1 2 3 4; do (for k in 1 2 3 4 5; do echo \"job $i line $k\"; done >> f) & done; wait; sort f > sorted; rm f",
    );
}

#[test]
fn pipes_here_documents_and_command_substitution_work_inside() {
    shell(
        "pipes",
        "seq 1 1000 | tee f | wc -l > n; cat > h <<END\n$(wc -l < f) lines\nEND\n[ -s h ] && x=$(cat h) && echo \"$x\" > k; \
         (cd / && ls -d tmp) > l; mkdir d && (cd d && echo in > f && pwd | sed 's,.*/,,' > where)",
    );
}

#[test]
fn output_of_one_step_is_redirected_input_of_the_next_while_it_is_written() {
    Workflow::new("between")
        .step(
            Step::sh(
                "make",
                "{ seq 1 500; sleep 0.1; seq 501 1000; sh -c 'seq 1001 2000'; } > f",
            )
            .rule(&["f"], "on_close", "no_update"),
        )
        .step(
            Step::sh(
                "use",
                "{ { head -n 1 > /dev/null; sort -rn | head -n 1500; } < f; tail -n 2 f; } > g",
            )
            .reads(&["f"])
            .rule(&["g"], "on_close", "no_update"),
        )
        .step(
            Step::sh("sum", "awk '{ s += $1 } END { print s }' < g >> total")
                .reads(&["g"])
                .writes(&["total"]),
        )
        .verify();
}
