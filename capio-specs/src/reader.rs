//! Taking typed values out of a JSON tree, noting what does not fit.

use crate::document::Located;
use crate::error::{Problem, ProblemKind, Report};
use crate::json::{Field, Node, Value};

/// An object whose keys are all known and stand there once.
pub(crate) struct Fields<'n> {
    fields: &'n [Field],
    /// Where the object begins.
    pub(crate) at: usize,
    /// What the object is, for messages.
    pub(crate) what: String,
}

impl<'n> Fields<'n> {
    /// Value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        Some(&field.node)
    }

    /// Where `key` itself stands.
    pub(crate) fn key_at(&self, key: &str) -> Option<usize> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        Some(field.key_at)
    }
}

/// Lists names as a message does: `"a", "b"`.
pub(crate) fn quoted(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}

/// The name nearest to `wrong`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| {
        let distance = strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
        (distance, name)
    });
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    let longest = wrong.chars().count().max(name.chars().count());
    (distance <= longest.div_ceil(3)).then_some(name)
}

fn did_you_mean(problem: Problem, wrong: &str, known: &[&str]) -> Problem {
    match nearest(wrong, known.iter().copied()) {
        Some(name) => problem.hint(format!("did you mean {name:?}?")),
        None => problem,
    }
}

impl Report<'_> {
    /// `node` as an object with no key but `known`.
    pub(crate) fn object<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> Option<Fields<'n>> {
        let Value::Object(fields) = &node.value else {
            self.wrong_type(node, what, "an object");
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        for field in fields {
            let key = &field.key;
            if !seen.insert(key.as_str()) {
                let message = format!("key {key:?} stands twice in {what}");
                let problem = Problem::new(ProblemKind::DuplicateKey, message);
                self.add(field.key_at, problem.hint("leave one of them out"));
            } else if !known.contains(&key.as_str()) {
                self.unknown_key(field, what, known);
            }
        }
        Some(Fields {
            fields,
            at: node.at,
            what: what.to_owned(),
        })
    }

    fn unknown_key(&mut self, field: &Field, what: &str, known: &[&str]) {
        let message = format!("unknown key {:?} in {what}", field.key);
        let problem = Problem::new(ProblemKind::UnknownKey, message);
        let problem = problem.expect(format!("one of {}", quoted(known)));
        let problem = if field.key == "configuration" && !known.contains(&"configuration") {
            problem.hint("\"configuration\" needs \"version\": 1.1")
        } else {
            did_you_mean(problem, &field.key, known)
        };
        self.add(field.key_at, problem);
    }

    /// Value of a key that must be there.
    pub(crate) fn require<'n>(
        &mut self,
        fields: &Fields<'n>,
        key: &str,
        hint: &str,
    ) -> Option<&'n Node> {
        let found = fields.get(key);
        if found.is_none() {
            let message = format!("missing key {key:?} in {}", fields.what);
            let problem = Problem::new(ProblemKind::MissingKey, message);
            self.add(fields.at, problem.hint(hint));
        }
        found
    }

    /// Notes that `node`, which is `what`, should have been `expected`.
    pub(crate) fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} is {}", node.kind());
        let problem = Problem::new(ProblemKind::WrongType, message).expect(expected);
        let problem = match &node.value {
            Value::String(text) if expected == "an array of strings" => {
                problem.hint(format!("write [{text:?}]"))
            }
            _ => problem,
        };
        self.add(node.at, problem);
    }

    /// Notes a value that means nothing.
    pub(crate) fn wrong_value(&mut self, node: &Node, value: &str, what: &str, known: &[&str]) {
        let problem = Problem::new(
            ProblemKind::WrongValue,
            format!("{value:?} is no value of {what}"),
        )
        .expect(format!("one of {}", quoted(known)));
        self.add(node.at, did_you_mean(problem, value, known));
    }

    /// `node` as a string.
    pub(crate) fn string(&mut self, node: &Node, what: &str) -> Option<Located> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, what, "a string");
            return None;
        };
        Some(Located {
            text: text.clone(),
            at: node.at,
        })
    }

    /// `node` as an array.
    pub(crate) fn array<'n>(&mut self, node: &'n Node, what: &str, expected: &str) -> &'n [Node] {
        match &node.value {
            Value::Array(nodes) => nodes,
            _ => {
                self.wrong_type(node, what, expected);
                &[]
            }
        }
    }

    /// `node` as an array of file names or patterns.
    pub(crate) fn names(&mut self, node: &Node, what: &str) -> Vec<Located> {
        let nodes = self.array(node, what, "an array of strings");
        let item = format!("an item of {what}");
        let names = nodes.iter().filter_map(|node| {
            let name = self.string(node, &item)?;
            self.usable_name(&name, what).then_some(name)
        });
        names.collect()
    }

    /// The names under an optional key.
    pub(crate) fn optional_names(&mut self, fields: &Fields<'_>, key: &str) -> Vec<Located> {
        let what = format!("{key:?} of {}", fields.what);
        fields
            .get(key)
            .map(|node| self.names(node, &what))
            .unwrap_or_default()
    }

    fn usable_name(&mut self, name: &Located, what: &str) -> bool {
        let (message, hint) = if name.text.is_empty() {
            (
                format!("{what} holds an empty name"),
                "name a file, or \".\" for the directory itself",
            )
        } else if name.text.contains('\0') {
            (
                format!("{what} holds a name with a NUL in it"),
                "no file can have such a name",
            )
        } else {
            return true;
        };
        let problem = Problem::new(ProblemKind::WrongValue, message);
        self.add(name.at, problem.hint(hint));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_mistyped_key_finds_its_neighbour_and_nonsense_finds_none() {
        let known = ["input_stream", "output_stream", "streaming"];
        assert_eq!(nearest("inptu_stream", known), Some("input_stream"));
        assert_eq!(nearest("Streaming", known), Some("streaming"));
        assert_eq!(nearest("colour", known), None);
    }
}
