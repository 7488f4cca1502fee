//! Random schemas of supported keywords that some value satisfies.

use serde_json::{Map, Value, json};

use super::support::Random;

/// Schemas inside one another.
const DEPTH: usize = 4;

/// A schema with definitions, some of them recursive.
pub(crate) fn generate(random: &mut Random) -> Value {
    let mut definitions = Map::new();
    for name in ["one", "two"] {
        definitions.insert(name.to_owned(), schema(random, DEPTH - 2));
    }
    let optional = json!({ "anyOf": [{ "$ref": "#/$defs/tree" }, { "type": "null" }] });
    definitions.insert(
        "tree".to_owned(),
        json!({ "type": "object", "properties": { "value": schema(random, 1), "child": optional }, "required": ["value"] }),
    );
    let mut root = schema(random, DEPTH);
    if let Some(fields) = root.as_object_mut() {
        fields.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn schema(random: &mut Random, depth: usize) -> Value {
    let mut schema = match random.below(if depth == 0 { 6 } else { 14 }) {
        0 => integer(random),
        1 => number(random),
        2 | 3 => string(random),
        4 => values(random),
        5 => json!({ "type": *random.pick(&["boolean", "null"]) }),
        6 => array(random, depth),
        7 => tuple(random, depth),
        8 => combination(random, depth),
        9 => nullable(random, depth),
        10 => json!({ "$ref": *random.pick(&["#/$defs/one", "#/$defs/two", "#/$defs/tree"]) }),
        11 => map(random, depth),
        _ => object(random, depth),
    };
    if random.chance(20)
        && let Some(fields) = schema.as_object_mut()
    {
        fields.insert("description".to_owned(), "anything".into());
    }
    schema
}

fn integer(random: &mut Random) -> Value {
    let mut schema = json!({ "type": "integer" });
    let low = random.below(2_000) as i64 - 1_000;
    let high = low + random.below(3_000) as i64 + 20;
    if random.chance(60) {
        schema[*random.pick(&["minimum", "exclusiveMinimum"])] = low.into();
    }
    if random.chance(60) {
        schema[*random.pick(&["maximum", "exclusiveMaximum"])] = high.into();
    }
    // Beyond 2^53 the validator divides inexactly.
    if random.chance(40) && schema.as_object().is_some_and(|fields| fields.len() == 3) {
        schema["multipleOf"] = (1 + random.below(9)).into();
    }
    schema
}

fn number(random: &mut Random) -> Value {
    let mut schema = json!({ "type": "number" });
    let low = random.below(20_000) as f64 / 8.0 - 1_000.0;
    if random.chance(50) {
        schema[*random.pick(&["minimum", "exclusiveMinimum"])] = low.into();
    }
    if random.chance(50) {
        schema[*random.pick(&["maximum", "exclusiveMaximum"])] = (low + 0.5 + random.below(999) as f64).into();
    }
    schema
}

fn string(random: &mut Random) -> Value {
    let patterns = ["^[a-z]+$", "^\\d{3}-\\d{4}$", "^(foo|bar)*baz$", "[A-F]", "^.{1,8}$", "^\\S+@\\S+$", "^é+$"];
    let formats = ["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "uri", "hostname", "duration"];
    let mut schema = json!({ "type": "string" });
    match random.below(4) {
        0 => schema["pattern"] = (*random.pick(&patterns)).into(),
        1 => schema["format"] = (*random.pick(&formats)).into(),
        2 => {
            let least = random.below(6);
            schema["minLength"] = least.into();
            if random.chance(70) {
                schema["maxLength"] = (least + random.below(12)).into();
            }
        }
        _ => {}
    }
    schema
}

fn values(random: &mut Random) -> Value {
    let all = [
        json!("a"),
        json!("b\"c"),
        json!("é\n"),
        json!(1),
        json!(-2.5),
        json!(null),
        json!(true),
        json!([1, "x"]),
        json!({ "k": 0 }),
    ];
    let count = 1 + random.below(5);
    let chosen: Vec<Value> = (0..count).map(|_| random.pick(&all).clone()).collect();
    if count == 1 { json!({ "const": chosen[0] }) } else { json!({ "enum": chosen }) }
}

fn array(random: &mut Random, depth: usize) -> Value {
    let mut schema = json!({ "type": "array", "items": self::schema(random, depth - 1) });
    let least = random.below(4);
    if random.chance(50) {
        schema["minItems"] = least.into();
    }
    if random.chance(50) {
        schema["maxItems"] = (least + random.below(4)).into();
    }
    schema
}

fn tuple(random: &mut Random, depth: usize) -> Value {
    let count = 1 + random.below(3);
    let items: Vec<Value> = (0..count).map(|_| schema(random, depth - 1)).collect();
    let rest = if random.chance(50) { Value::Bool(false) } else { schema(random, depth - 1) };
    let mut tuple = json!({ "type": "array", "prefixItems": items, "items": rest });
    if random.chance(70) {
        tuple["minItems"] = count.into();
    }
    tuple
}

fn combination(random: &mut Random, depth: usize) -> Value {
    match random.below(3) {
        0 => {
            let options: Vec<Value> = (0..1 + random.below(4)).map(|_| schema(random, depth - 1)).collect();
            json!({ "anyOf": options })
        }
        1 => {
            let option = |random: &mut Random, kind: &str| json!({ "type": "object", "properties": { "kind": { "const": kind }, "value": schema(random, depth - 1) }, "required": ["kind"] });
            json!({ "oneOf": [option(random, "left"), option(random, "right"), { "type": "string" }, { "type": "number" }] })
        }
        _ => json!({ "allOf": [
            { "type": "object", "properties": { "first": schema(random, depth - 1) }, "required": ["first"] },
            { "properties": { "second": schema(random, depth - 1) } },
        ] }),
    }
}

fn nullable(random: &mut Random, depth: usize) -> Value {
    match random.chance(50) {
        true => json!({ "anyOf": [schema(random, depth - 1), { "type": "null" }] }),
        false => json!({ "type": [*random.pick(&["string", "integer", "array"]), "null"] }),
    }
}

fn map(random: &mut Random, depth: usize) -> Value {
    match random.chance(60) {
        true => json!({ "type": "object", "additionalProperties": schema(random, depth - 1) }),
        false => json!({
            "type": "object",
            "patternProperties": { "^n_[a-z]+$": schema(random, depth - 1), "^S": schema(random, depth - 1) },
            "additionalProperties": false,
        }),
    }
}

fn object(random: &mut Random, depth: usize) -> Value {
    let names = ["id", "name", "a b", "quo\"te", "sl/ash", "é", "list", "x"];
    let mut properties = Map::new();
    let mut required = Vec::new();
    for name in names {
        if random.chance(45) {
            properties.insert(name.to_owned(), schema(random, depth - 1));
            if random.chance(60) {
                required.push(name);
            }
        }
    }
    let mut object = json!({ "type": "object", "properties": properties, "required": required });
    match random.below(3) {
        0 => object["additionalProperties"] = false.into(),
        1 => object["additionalProperties"] = schema(random, 0),
        _ => {}
    }
    object
}
