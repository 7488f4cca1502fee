//! What is not supported, or wrong, is told by keyword and place.

use fastq_core::Error;
use fastq_core::grammar::GrammarSource;

use super::support::tiny;

/// Schema, and what the message must be (or hold, where it begins with `…`).
#[rustfmt::skip]
const CASES: &[(&str, &str)] = &[
    (r#"{"type":"array","uniqueItems":true}"#, "schema: keyword `uniqueItems` is not supported (at #/uniqueItems)"),
    (r#"{"properties":{"a/b":{"not":{"type":"null"}}}}"#, "schema: keyword `not` is not supported (at #/properties/a~1b/not)"),
    (r#"{"if":{},"then":{}}"#, "schema: keyword `if` is not supported (at #/if)"),
    (r#"{"items":{"contains":{}}}"#, "schema: keyword `contains` is not supported (at #/items/contains)"),
    (r#"{"anyOf":[{},{"dependentRequired":{}}]}"#, "schema: keyword `dependentRequired` is not supported (at #/anyOf/1/dependentRequired)"),
    (r##"{"$ref":"#/$defs/a","$defs":{"a":{"propertyNames":{}}}}"##, "schema: keyword `propertyNames` is not supported (at #/$defs/a/propertyNames)"),
    (r#"{"unevaluatedProperties":false}"#, "schema: keyword `unevaluatedProperties` is not supported (at #/unevaluatedProperties)"),
    (r#"{"x-guidance":{"lenient":true}}"#, "schema: keyword `x-guidance` is not supported (at #/x-guidance)"),
    (r#"{"type":"string","nullable":true}"#, "schema: keyword `nullable` is not supported (at #/nullable)"),
    (r#"{"type":"array","minItem":2}"#, "schema: keyword `minItem` is not known; remove it, or put it where it belongs (at #/minItem)"),
    (r#"{"type":"text"}"#, "schema: `type` must be one of null, boolean, integer, number, string, array, object, or an array of them, found \"text\" (at #/type)"),
    (r#"{"type":"string","format":"color"}"#, "schema: `format` must be one of date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid, uri to be followed, found \"color\" (at #/format)"),
    (r#"{"type":"string","pattern":"a("}"#, "schema: `pattern` must be a regular expression: unclosed group at column 2 of \"a(\" (at #/pattern)"),
    (r#"{"type":"string","pattern":"(?=a)"}"#, "…look-around"),
    (r#"{"patternProperties":{"[":{}}}"#, "…(at #/patternProperties)"),
    (r#"{"type":"string","minLength":-1}"#, "schema: `minLength` must be an integer from 0 to 1000000, found -1 (at #/minLength)"),
    (r#"{"type":"string","maxLength":1000001}"#, "schema: `maxLength` must be an integer from 0 to 1000000, found 1000001 (at #/maxLength)"),
    (r#"{"const":9007199254740993}"#, "schema: `const` must have integers of at most 2^53, found 9007199254740993 (at #/const)"),
    (r#"{"maximum":"3"}"#, "schema: `maximum` must be a number, found \"3\" (at #/maximum)"),
    (r#"{"multipleOf":0}"#, "schema: `multipleOf` must be a number above 0 with at most 8 digits, found 0 (at #/multipleOf)"),
    (r#"{"multipleOf":1e-300}"#, "schema: `multipleOf` must be a number above 0 with at most 8 digits, found 1e-300 (at #/multipleOf)"),
    (r#"{"allOf":[{"multipleOf":2},{"type":"integer","multipleOf":3}]}"#, "schema: keyword `multipleOf` is supported once for one number"),
    (r##"{"$ref":"#/$defs/a","multipleOf":2,"$defs":{"a":{"multipleOf":3}}}"##, "schema: keyword `multipleOf` is supported once for one number"),
    (r#"{"type":"string","allOf":[{"pattern":"a"},{"pattern":"b"},{"pattern":"c"},{"pattern":"d"},{"pattern":"e"},{"pattern":"f"},{"pattern":"g"},{"pattern":"h"},{"format":"uri"}]}"#,
        "schema: at most 8 patterns, formats and lengths may hold for one text, found 9"),
    (r#"{"enum":[]}"#, "schema: `enum` must be an array of at least one value, found [] (at #/enum)"),
    (r#"{"required":"a"}"#, "schema: `required` must be an array of at most 1000 names, found \"a\" (at #/required)"),
    (r#"{"properties":[]}"#, "schema: `properties` must be an object of schemas (at #/properties)"),
    (r#"{"anyOf":{}}"#, "schema: `anyOf` must be an array of schemas (at #/anyOf)"),
    (r#"{"items":3}"#, "schema: a schema must be an object, true or false (at #/items)"),
    ("3", "schema: a schema must be an object, true or false (at #)"),
    (r##"{"$ref":"#/$defs/b","$defs":{"a":{}}}"##, "schema: `$ref` must be a place in the same schema, found nothing at \"#/$defs/b\"; the definitions are a (at #/$ref)"),
    (r#"{"$ref":"https://example.org/schema.json"}"#, "schema: `$ref` must be a place in the same schema, `#` or `#/…`, found \"https://example.org/schema.json\" (at #/$ref)"),
    (r#"{"oneOf":[{"type":"integer"},{"type":"number"}]}"#, "schema: keyword `oneOf` is supported where no two options can hold at once (other types, or a required property with other constants); use `anyOf` (at #/oneOf)"),
    // Nothing is valid.
    ("false", "…nsatisfiable"),
    (r#"{"type":"integer","minimum":5,"maximum":4}"#, "…"),
    (r#"{"type":"string","minLength":5,"maxLength":4}"#, "…minLength (5) is greater than maxLength (4)"),
    (r#"{"allOf":[{"type":"string"},{"type":"integer"}]}"#, "…incompatible types"),
    (r##"{"$ref":"#"}"##, "…without an end"),
    (r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##, "…without an end"),
    (r##"{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}"##, "schema: a value would have to hold another one of the same kind, without an end (at #)"),
    (r##"{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"array","minItems":1,"items":{"anyOf":[{"$ref":"#/$defs/a"}]}}}}"##, "schema: a value would have to hold another one of the same kind, without an end (at #/$defs/a)"),
];

#[test]
fn the_keyword_and_its_place_are_named() {
    let model = &tiny()[0];
    for (schema, expected) in CASES {
        let source = GrammarSource::JsonSchema(serde_json::from_str(schema).unwrap());
        let found = match model.compile(&source) {
            Err(Error::Grammar(found)) => found,
            other => panic!("{schema}: {other:?}"),
        };
        match expected.strip_prefix('…') {
            Some(part) => assert!(found.contains(part), "{schema}: {found}"),
            None => assert_eq!(found, *expected, "{schema}"),
        }
    }
}
