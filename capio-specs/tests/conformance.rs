//! The reference's sample documents and its verdict on each.
//!
//! They are read from the folder that `CAPIO_CL_CORPUS` names, else from
//! `../../shared/capio-cl` beside the repository; without it the test says
//! that it was skipped.

use std::path::{Path, PathBuf};

use capio_specs::{ParseOptions, Spec};

fn corpus() -> Option<PathBuf> {
    let folder = match std::env::var_os("CAPIO_CL_CORPUS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/capio-cl"),
    };
    folder.join("expected.tsv").is_file().then_some(folder)
}

/// The TOML file that a sample names by an absolute path.
fn make_sample_toml() {
    let folder = Path::new("/tmp/capio_cl_tomls");
    std::fs::create_dir_all(folder).expect("create the sample's folder");
    let text = "[monitor.filesystem]\nenabled = true\n\n\
        [monitor.mcast]\nenabled = true\ndelay_ms = 300\n\n\
        [monitor.mcast.commit]\nip = \"224.224.224.1\"\nport = 12345\n\n\
        [monitor.mcast.homenode]\nip = \"224.224.224.2\"\nport = 12345\n";
    // By a rename: another test may be reading it.
    let own = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    std::fs::write(folder.join(&own), text).expect("write the sample");
    std::fs::rename(folder.join(&own), folder.join("sample1.toml")).expect("name the sample");
}

#[test]
fn documents_are_accepted_and_refused_as_by_the_reference() {
    let Some(corpus) = corpus() else {
        eprintln!("skipped: no folder of sample documents; name it in CAPIO_CL_CORPUS");
        return;
    };
    make_sample_toml();
    let verdicts = std::fs::read_to_string(corpus.join("expected.tsv")).expect("read verdicts");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for row in verdicts.lines().filter(|row| !row.starts_with('#')) {
        let Some((name, verdict)) = row.split_once('\t') else {
            continue;
        };
        seen += 1;
        let result = Spec::load(&corpus.join(name), &ParseOptions::default());
        let ours = if result.is_ok() { "accept" } else { "reject" };
        if ours != verdict {
            wrong.push(format!("{name}: {verdict}, but ours: {result:?}"));
        }
    }
    assert!(seen > 0, "expected.tsv holds no verdicts");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_toml_configuration_is_read_with_all_its_tables() {
    let Some(corpus) = corpus() else {
        eprintln!("skipped: no folder of sample documents; name it in CAPIO_CL_CORPUS");
        return;
    };
    make_sample_toml();
    let document = corpus.join("v1.1/test24.json");
    let spec = Spec::load(&document, &ParseOptions::default()).expect("accepted");
    let monitor = &spec.configuration().expect("named").monitor;
    assert_eq!(monitor.filesystem.enabled, Some(true));
    assert_eq!(monitor.mcast.commit.port, Some(12345));
}
