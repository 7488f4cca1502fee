//! Whether some value of a schema comes to an end: what requires itself is a text that never does.

use serde_json::{Map, Value};

/// Rounds at most; chains of references take few, since what is found last is looked at first.
const MAX_ROUNDS: usize = 100;

/// The name of a definition that has no finite value. `definitions` refer to one another as `#/$defs/NAME`.
pub(super) fn endless(definitions: &Map<String, Value>) -> Option<&str> {
    let mut finite: Map<String, Value> = Map::new();
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for (name, schema) in definitions.iter().rev() {
            if !finite.contains_key(name) && ends(schema, &finite) {
                finite.insert(name.clone(), Value::Null);
                changed = true;
            }
        }
        if !changed {
            return definitions.keys().map(String::as_str).find(|name| !finite.contains_key(*name));
        }
    }
    None
}

/// Whether a value ends, when those of the definitions in `finite` do. Where it is not clear it does.
fn ends(schema: &Value, finite: &Map<String, Value>) -> bool {
    let Value::Object(fields) = schema else { return true };
    if fields.contains_key("const") || fields.contains_key("enum") {
        return true;
    }
    let list = |key: &str| fields.get(key).and_then(Value::as_array).map(Vec::as_slice);
    let referred = fields.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"));
    if referred.is_some_and(|name| !finite.contains_key(name))
        || list("allOf").is_some_and(|all| !all.iter().all(|schema| ends(schema, finite)))
        || list("anyOf").is_some_and(|any| !any.iter().any(|schema| ends(schema, finite)))
    {
        return false;
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("object") => {
            let property = |name: &Value| fields.get("properties")?.get(name.as_str()?);
            list("required").into_iter().flatten().filter_map(property).all(|schema| ends(schema, finite))
        }
        Some("array") => {
            let least = fields.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
            let first = list("prefixItems").unwrap_or_default();
            let rest = fields.get("items").filter(|_| least > first.len());
            first.iter().take(least).chain(rest).all(|schema| ends(schema, finite))
        }
        _ => true,
    }
}
