//! How many conditions on one text, or one number, must hold at once. Their automata are multiplied, and so is the work.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Patterns, formats and lengths.
    Text,
    /// `multipleOf`, of which llguidance takes the least common multiple in 32 bits.
    Multiple,
}

/// Most conditions on one value that are asked for at once. `definitions` refer to one another as
/// `#/$defs/NAME`; what leads back to itself counts once.
pub(super) fn conditions(root: &Value, definitions: &Map<String, Value>, of: Of) -> usize {
    let mut known: HashMap<&str, usize> = HashMap::new();
    // Definitions that others refer to come behind them, so that few rounds are needed; a chain longer than this has no meaning.
    for _ in 0..8 {
        let mut changed = false;
        for (name, schema) in definitions.iter().rev() {
            let count = count(schema, &known, of);
            changed |= known.insert(name, count) != Some(count);
        }
        if !changed {
            break;
        }
    }
    count(root, &known, of).max(known.values().copied().max().unwrap_or(0))
}

fn count(schema: &Value, known: &HashMap<&str, usize>, of: Of) -> usize {
    let Value::Object(fields) = schema else { return 0 };
    let (mut own, mut together, mut inner) = (0usize, 0usize, 0usize);
    for (key, value) in fields {
        let most =
            |values: &mut dyn Iterator<Item = &Value>| values.map(|value| count(value, known, of)).max().unwrap_or(0);
        match key.as_str() {
            "pattern" | "format" if of == Of::Text => own += 1,
            "minLength" | "maxLength" if of == Of::Text => own = own.max(1),
            "multipleOf" if of == Of::Multiple => own = 1,
            "$ref" => {
                let name = value.as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
                together += name.and_then(|name| known.get(name)).copied().unwrap_or(0);
            }
            "allOf" => {
                together += value.as_array().into_iter().flatten().map(|value| count(value, known, of)).sum::<usize>()
            }
            "anyOf" => together += most(&mut value.as_array().into_iter().flatten()),
            "prefixItems" => inner = inner.max(most(&mut value.as_array().into_iter().flatten())),
            "properties" | "patternProperties" => {
                inner = inner.max(most(&mut value.as_object().into_iter().flat_map(Map::values)));
            }
            "items" if value.is_array() => inner = inner.max(most(&mut value.as_array().into_iter().flatten())),
            "items" | "additionalItems" | "additionalProperties" => inner = inner.max(count(value, known, of)),
            _ => {}
        }
    }
    own.max(inner).saturating_add(together)
}
