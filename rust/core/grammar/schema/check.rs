//! The keywords of JSON Schema: what each holds, and what is not supported.

use serde_json::Value;

use super::super::regex;

/// The largest count that lengths, items and properties are bounded by.
const MAX_COUNT: u64 = 1_000_000;

/// Integers beyond are not exact as f64, in which bounds are computed.
const MAX_INTEGER: u64 = 1 << 53;

/// Digits of `multipleOf`, the zeros in front included.
const MAX_DIGITS: usize = 8;

/// Formats of texts that are supported. Others would be ignored.
const FORMATS: &[&str] = &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Days: those of February by whether the year is a leap year, years from 1 (Python knows no other).
const DATE: &str = concat!(
    r"(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})-(?:",
    r"(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))",
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
);

/// Times with an offset, without leap seconds, which not every minute has.
const TIME: &str = concat!(
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?",
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
);

/// One part of a host name; with at most eight of them it has no more than 253 characters. Hyphens are single: `xn--` begins what is encoded.
const LABEL: &str = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,14}";

/// What stands before the `@`, at most 64 characters.
const MAILBOX: &str = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,15}(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,15}){0,3}";

/// The pattern to write a format by, where llguidance's takes more than is valid: RFC 3339 asks for days that exist, RFC 5321 and
/// RFC 1035 bound lengths. All that match are valid; not all that are valid match.
pub(super) fn stricter(format: &Value) -> Option<String> {
    match format.as_str()? {
        "date" => Some(format!("^{DATE}$")),
        "time" => Some(format!("^{TIME}$")),
        "date-time" => Some(format!("^{DATE}T{TIME}$")),
        "hostname" => Some(format!(r"^{LABEL}(?:\.{LABEL}){{0,7}}$")),
        "email" => Some(format!(r"^{MAILBOX}@(?:{LABEL}\.){{1,6}}[A-Za-z]{{2,15}}$")),
        _ => None,
    }
}

const TYPES: &[&str] = &["null", "boolean", "integer", "number", "string", "array", "object"];

/// How a keyword is treated.
pub(super) enum Keyword {
    /// Says nothing about what is valid, or is followed from elsewhere.
    Annotation,
    /// Is not supported.
    Unsupported,
    /// Is supported where it asks for nothing.
    False,
    /// Holds no schema; checked by itself.
    Plain(fn(&Value) -> Result<(), String>),
    /// `const` and `enum`.
    Values,
    /// Holds a schema.
    Schema,
    /// Holds an array of schemas.
    List,
    /// Holds an object of schemas.
    Map,
    /// `$ref`.
    Reference,
}

/// How `name` is treated; `None` for what no draft knows.
pub(super) fn keyword(name: &str) -> Option<Keyword> {
    Some(match name {
        "$anchor" | "$comment" | "$defs" | "$id" | "$schema" | "$vocabulary" | "definitions" | "id" => {
            Keyword::Annotation
        }
        "title" | "description" | "default" | "examples" | "example" | "deprecated" | "readOnly" | "writeOnly" => {
            Keyword::Annotation
        }
        // Of OpenAPI: only a hint which option is meant.
        "discriminator" | "externalDocs" | "xml" => Keyword::Annotation,
        // Say how a text is encoded, not which texts are valid.
        "contentEncoding" | "contentMediaType" | "contentSchema" => Keyword::Annotation,
        name if name.starts_with("x-") && name != "x-guidance" => Keyword::Annotation,
        "type" => Keyword::Plain(types),
        "format" => Keyword::Plain(format),
        "pattern" => Keyword::Plain(pattern),
        "required" => Keyword::Plain(names),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            Keyword::Plain(count)
        }
        "minimum" | "maximum" => Keyword::Plain(number),
        "exclusiveMinimum" | "exclusiveMaximum" => Keyword::Plain(bound),
        "multipleOf" => Keyword::Plain(multiple),
        "const" | "enum" => Keyword::Values,
        "items" | "additionalItems" | "additionalProperties" => Keyword::Schema,
        "prefixItems" | "allOf" | "anyOf" | "oneOf" => Keyword::List,
        "properties" | "patternProperties" => Keyword::Map,
        "$ref" => Keyword::Reference,
        "uniqueItems" | "nullable" => Keyword::False,
        "$dynamicAnchor"
        | "$dynamicRef"
        | "$recursiveAnchor"
        | "$recursiveRef"
        | "contains"
        | "dependencies"
        | "dependentRequired"
        | "dependentSchemas"
        | "else"
        | "if"
        | "maxContains"
        | "minContains"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "x-guidance" => Keyword::Unsupported,
        _ => return None,
    })
}

fn types(value: &Value) -> Result<(), String> {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let right = match value {
        Value::Array(names) => !names.is_empty() && names.len() <= TYPES.len() && names.iter().all(known),
        name => known(name),
    };
    if right {
        Ok(())
    } else {
        Err(format!("must be one of {}, or an array of them, found {}", TYPES.join(", "), short(value)))
    }
}

fn format(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(name) if FORMATS.contains(&name) => Ok(()),
        _ => Err(format!("must be one of {} to be followed, found {}", FORMATS.join(", "), short(value))),
    }
}

fn pattern(value: &Value) -> Result<(), String> {
    let Value::String(pattern) = value else { return Err(format!("must be a text, found {}", short(value))) };
    regex::check(pattern).map(drop).map_err(|what| format!("must be a regular expression: {what}"))
}

fn names(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(names) if names.len() <= super::MAX_PROPERTIES && names.iter().all(Value::is_string) => Ok(()),
        _ => Err(format!("must be an array of at most {} names, found {}", super::MAX_PROPERTIES, short(value))),
    }
}

fn count(value: &Value) -> Result<(), String> {
    match value.as_u64() {
        Some(0..=MAX_COUNT) => Ok(()),
        _ => Err(format!("must be an integer from 0 to {MAX_COUNT}, found {}", short(value))),
    }
}

fn number(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(_) => exact(value),
        _ => Err(format!("must be a number, found {}", short(value))),
    }
}

/// A number, or since draft 4 whether `minimum` or `maximum` are meant so.
fn bound(value: &Value) -> Result<(), String> {
    if value.is_boolean() { Ok(()) } else { number(value) }
}

fn multiple(value: &Value) -> Result<(), String> {
    match value.as_f64() {
        // Remainders are computed in 32 bits.
        Some(step) if step > 0.0 && step.to_string().bytes().filter(u8::is_ascii_digit).count() <= MAX_DIGITS => Ok(()),
        _ => Err(format!("must be a number above 0 with at most {MAX_DIGITS} digits, found {}", short(value))),
    }
}

/// Refuses integers that f64 rounds.
fn exact(value: &Value) -> Result<(), String> {
    let magnitude = value.as_u64().or_else(|| value.as_i64().map(i64::unsigned_abs));
    let exact = match magnitude {
        Some(magnitude) => magnitude <= MAX_INTEGER,
        None => value.as_f64().is_some_and(f64::is_finite),
    };
    if exact { Ok(()) } else { Err(format!("must have integers of at most 2^53, found {}", short(value))) }
}

/// Checks `const` and `enum`.
pub(super) fn values(key: &str, value: &Value) -> Result<(), String> {
    match (key, value) {
        ("enum", Value::Array(values)) if !values.is_empty() => {}
        ("enum", _) => return Err(format!("`enum` must be an array of at least one value, found {}", short(value))),
        _ => {}
    }
    fn each(value: &Value) -> Result<(), String> {
        match value {
            Value::Number(_) => exact(value),
            Value::String(text) if text.len() > regex::MAX_TEXT => {
                Err(format!("must have texts of at most {} bytes, found {}", regex::MAX_TEXT, text.len()))
            }
            Value::Array(items) => items.iter().try_for_each(each),
            Value::Object(fields) => fields.values().try_for_each(each),
            _ => Ok(()),
        }
    }
    each(value).map_err(|what| format!("`{key}` {what}"))
}

/// A value for a message.
fn short(value: &Value) -> String {
    match value {
        Value::Array(items) if items.len() > 4 => format!("an array of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
        value => value.to_string().chars().take(80).collect(),
    }
}
