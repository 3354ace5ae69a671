//! JSON values with the byte offset of each.
//!
//! `serde_json` alone judges what is JSON (strictly RFC 8259, at most 128
//! levels deep); `jsonc-parser`, which is laxer, then gives the offsets.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;

use crate::position::Lines;

/// A value and where it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: usize,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool,
    /// As it stands in the text.
    Number(String),
    String(String),
    Array(Vec<Node>),
    /// In the document's order, doubled keys included.
    Object(Vec<Field>),
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) key_at: usize,
    pub(crate) node: Node,
}

impl Node {
    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }
}

/// A text that is not JSON, and where.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) at: usize,
}

/// Reads one JSON value.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        return Err(from_serde(text, &error));
    }
    let collect = jsonc_parser::CollectOptions::default();
    let root = jsonc_parser::parse_to_ast(text, &collect, &strict())
        .map_err(|error| SyntaxError {
            message: error.kind().to_string(),
            at: error.range().start,
        })?
        .value;
    root.map(node).ok_or_else(|| SyntaxError {
        message: "the document is empty".to_owned(),
        at: 0,
    })
}

fn strict() -> jsonc_parser::ParseOptions {
    jsonc_parser::ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn from_serde(text: &str, error: &serde_json::Error) -> SyntaxError {
    let whole = error.to_string();
    let tail = format!(" at line {} column {}", error.line(), error.column());
    SyntaxError {
        message: whole.strip_suffix(&tail).unwrap_or(&whole).to_owned(),
        at: Lines::new(text).offset(error.line(), error.column()),
    }
}

fn node(value: ast::Value<'_>) -> Node {
    let at = value.range().start;
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(_) => Value::Bool,
        ast::Value::NumberLit(number) => Value::Number(number.value.to_owned()),
        ast::Value::StringLit(string) => Value::String(string.value.into_owned()),
        ast::Value::Array(array) => Value::Array(array.elements.into_iter().map(node).collect()),
        ast::Value::Object(object) => {
            Value::Object(object.properties.into_iter().map(field).collect())
        }
    };
    Node { value, at }
}

fn field(property: ast::ObjectProp<'_>) -> Field {
    Field {
        key_at: property.name.range().start,
        key: property.name.into_string(),
        node: node(property.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Drops the offsets; the last of doubled keys counts, as in serde_json.
    fn plain(node: &Node) -> serde_json::Value {
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool => serde_json::Value::Bool(true),
            Value::Number(text) => serde_json::from_str(text).expect("a number"),
            Value::String(text) => text.clone().into(),
            Value::Array(nodes) => nodes.iter().map(plain).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|field| (field.key.clone(), plain(&field.node)))
                .collect(),
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            Just(serde_json::Value::Bool(true)),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_readers_agree_on_every_value(value in any_json()) {
            let text = value.to_string();
            prop_assert_eq!(plain(&parse(&text).expect("valid")), value);
        }
    }

    #[test]
    fn escapes_and_surrogates_are_decoded() {
        let node = parse(r#""\u00e9\ud83d\ude00\/\n\"\\""#).expect("valid");
        assert_eq!(plain(&node), "é😀/\n\"\\");
    }

    #[test]
    fn what_is_not_rfc_8259_is_refused_where_it_stands() {
        let cases = [
            ("", 0),
            ("{\"a\": 1,}", 8),
            ("[1 2]", 3),
            ("{'a': 1}", 1),
            ("[01]", 2),
            ("[1] // c", 4),
            ("\"\\ud800\"", 7),
            ("\"a\nb\"", 3),
            ("[\u{a0}1]", 1),
            ("{} {}", 3),
        ];
        for (text, at) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.at.abs_diff(at) <= 1, "{text:?}: {error:?}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
