//! What must hold for any text at all; the fuzz target checks the same.

use capio_specs::{ParseOptions, Spec};

/// Options that every text is read with: no document, so nothing is read
/// from disk but what a `configuration` key names.
pub(crate) fn options() -> ParseOptions {
    ParseOptions {
        resolve_prefix: Some("/capio".into()),
        document: None,
    }
}

/// Parses `text`; an error has places that lie in it, and a specification
/// can be printed, parsed again, checked and explained.
///
/// # Panics
/// When one of these does not hold.
pub(crate) fn survives(text: &str) {
    let spec = match Spec::parse(text, &options()) {
        Ok(spec) => spec,
        Err(error) => {
            let lines = text.matches('\n').count() + 1;
            for problem in error.problems() {
                assert!((1..=lines).contains(&problem.line), "{error}");
                let longest = text.split('\n').map(|line| line.chars().count()).max();
                assert!(
                    (1..=longest.unwrap_or(0) + 1).contains(&problem.column),
                    "{error}"
                );
                assert!(!problem.message.is_empty());
            }
            assert!(error.to_string().starts_with("(document):"));
            return;
        }
    };
    let printed = spec.to_json();
    match Spec::parse(&printed, &options()) {
        Ok(again) => assert_eq!(again.to_json(), printed),
        Err(error) => panic!("{error}\n{printed}"),
    }
    let report = spec.check();
    assert!(!report.to_string().is_empty() && !report.to_json().is_empty());
    for row in &report.files {
        let explanation = spec.explain(row.name.as_bytes());
        assert_eq!(explanation.rules, row.rules, "{}", row.name);
    }
}
