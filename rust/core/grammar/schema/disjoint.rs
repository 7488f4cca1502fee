//! Whether two schemas can hold for one value. Where no two options of a `oneOf` can, it means the same as `anyOf`.

use serde_json::{Map, Value};

use super::pointer::{normal, resolve};

/// Options of one `oneOf` that are compared with one another at most.
const MAX_OPTIONS: usize = 256;

/// References that lead to references, and properties inside properties.
const MAX_STEPS: usize = 8;

/// Whether no two of `options` can hold at once. With `present`, objects are known to have the property of this name.
pub(super) fn all(document: &Value, options: &Value, present: Option<&str>) -> bool {
    let Value::Array(options) = options else { return false };
    if options.len() > MAX_OPTIONS {
        return false;
    }
    let options: Vec<&Value> = options.iter().map(|option| target(document, option).0).collect();
    let apart = |(index, option): (usize, &&Value)| {
        options[..index].iter().all(|other| disjoint(document, option, other, present, MAX_STEPS))
    };
    options.iter().enumerate().all(apart)
}

/// What stands behind references, and the place of it when there were any.
pub(super) fn target<'d>(document: &'d Value, mut schema: &'d Value) -> (&'d Value, Option<String>) {
    let mut place = None;
    for _ in 0..MAX_STEPS {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
        // What stands beside a reference must hold as well; without it less is known, which is safe.
        let Ok(next) = normal(reference) else { break };
        let Ok(found) = resolve(document, &next) else { break };
        (schema, place) = (found, Some(next));
    }
    (schema, place)
}

fn disjoint(document: &Value, one: &Value, two: &Value, present: Option<&str>, steps: usize) -> bool {
    let (one, two) = (target(document, one).0, target(document, two).0);
    if *one == Value::Bool(false) || *two == Value::Bool(false) {
        return true;
    }
    let (Value::Object(one), Value::Object(two)) = (one, two) else { return false };
    if types(one) & types(two) == 0 {
        return true;
    }
    if let (Some(one), Some(two)) = (values(one), values(two))
        && !one.iter().any(|value| two.iter().any(|other| same(value, other)))
    {
        return true;
    }
    let both_objects = types(one) | types(two) == OBJECT;
    both_objects && steps > 0 && fields_disjoint(document, one, two, present, steps)
}

/// Whether a property that must be there cannot be there in both.
fn fields_disjoint(
    document: &Value,
    one: &Map<String, Value>,
    two: &Map<String, Value>,
    present: Option<&str>,
    steps: usize,
) -> bool {
    let required = required(one).chain(required(two)).chain(present);
    for name in required {
        match (property(one, name), property(two, name)) {
            (Some(one), Some(two)) if disjoint(document, one, two, None, steps - 1) => return true,
            (Some(_), None) if closed(two) => return true,
            (None, Some(_)) if closed(one) => return true,
            _ => {}
        }
    }
    false
}

fn required(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn property<'d>(schema: &'d Map<String, Value>, name: &str) -> Option<&'d Value> {
    schema.get("properties").and_then(|properties| properties.get(name))
}

/// Whether there may be no properties but those that are named.
fn closed(schema: &Map<String, Value>) -> bool {
    schema.get("additionalProperties") == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties")
}

const OBJECT: u8 = 1 << 5;

/// The types that a schema leaves, as bits.
fn types(schema: &Map<String, Value>) -> u8 {
    let bit = |name: &str| match name {
        "null" => 1,
        "boolean" => 1 << 1,
        "integer" | "number" => 1 << 2,
        "string" => 1 << 3,
        "array" => 1 << 4,
        "object" => OBJECT,
        _ => u8::MAX,
    };
    let named = match schema.get("type") {
        Some(Value::String(name)) => bit(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(bit).fold(0, |all, bit| all | bit),
        _ => u8::MAX,
    };
    let of_values = values(schema).map_or(u8::MAX, |values| {
        let of = |value: &Value| match value {
            Value::Null => bit("null"),
            Value::Bool(_) => bit("boolean"),
            Value::Number(_) => bit("number"),
            Value::String(_) => bit("string"),
            Value::Array(_) => bit("array"),
            Value::Object(_) => OBJECT,
        };
        values.iter().map(of).fold(0, |all, bit| all | bit)
    });
    named & of_values
}

/// The only values, where they are listed.
fn values(schema: &Map<String, Value>) -> Option<&[Value]> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Value::Array(values))) => Some(values),
        _ => None,
    }
}

/// Whether two values may be equal: numbers by value, what contains others always.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one.as_f64() == two.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        _ => one == two,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tells_options_apart() {
        let document = json!({ "$defs": {
            "cat": { "type": "object", "properties": { "kind": { "const": "cat" } }, "required": ["kind"] },
            "dog": { "type": "object", "properties": { "kind": { "const": "dog" } }, "required": ["kind"] },
            "cow": { "type": "object", "properties": { "kind": { "const": "cow" } } },
            "pig": { "type": "object", "properties": { "kind": { "const": "pig" } } },
            "alias": { "$ref": "#/$defs/dog" },
            "loop": { "$ref": "#/$defs/loop" },
        } });
        let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
        for (options, present, expected) in [
            (json!([{ "type": "string" }, { "type": "integer" }, { "type": "null" }]), None, true),
            (json!([{ "type": "number" }, { "type": "integer" }]), None, false),
            (json!([{ "type": ["string", "null"] }, { "type": ["null", "object"] }]), None, false),
            (json!([{ "const": "a" }, { "enum": ["b", "c"] }]), None, true),
            (json!([{ "const": 1 }, { "enum": [1.0] }]), None, false),
            (json!([{ "const": [1] }, { "const": [2] }]), None, false),
            (json!([{ "minimum": 3 }, { "maximum": 2 }]), None, false),
            (json!([reference("cat"), reference("dog")]), None, true),
            (json!([reference("cat"), reference("alias")]), None, true),
            (json!([reference("cat"), reference("cow")]), None, true),
            (json!([reference("cow"), reference("pig")]), None, false),
            (json!([reference("cow"), reference("pig")]), Some("kind"), true),
            (json!([reference("dog"), reference("alias")]), None, false),
            (json!([reference("loop"), reference("cat")]), None, false),
            (json!([false, {}]), None, true),
            (json!([true, { "type": "null" }]), None, false),
            (
                json!([
                    { "type": "object", "properties": { "a": {} }, "required": ["a"] },
                    { "type": "object", "properties": { "b": {} }, "additionalProperties": false },
                ]),
                None,
                true,
            ),
        ] {
            assert_eq!(all(&document, &options, present), expected, "{options}");
        }
    }
}
