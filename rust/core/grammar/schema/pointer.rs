//! Places in a schema: JSON pointers (RFC 6901) behind a `#`.

use std::fmt::Write;

use serde_json::Value;

/// The place of `key` inside `place`.
pub(super) fn child(place: &str, key: &str) -> String {
    format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The place that a `$ref` means, spelled in one way.
///
/// # Errors
/// A message when it is not a place in the same document.
pub(super) fn normal(reference: &str) -> Result<String, String> {
    let unsupported = || format!("`$ref` must be a place in the same schema, `#` or `#/…`, found {reference:?}");
    let pointer = reference.strip_prefix('#').ok_or_else(unsupported)?;
    // As part of a URI it may have characters in hexadecimal.
    let pointer = percent_decoded(pointer).ok_or_else(unsupported)?;
    match pointer.as_str() {
        "" | "/" => Ok("#".to_owned()),
        pointer if pointer.starts_with('/') => Ok(format!("#{pointer}")),
        _ => Err(unsupported()),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        bytes.push(match (first, others) {
            (b'%', [high, low, others @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                rest = others;
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
            }
            _ => *first,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The value at a place.
///
/// # Errors
/// A message when there is none.
pub(super) fn resolve<'d>(document: &'d Value, place: &str) -> Result<&'d Value, String> {
    document.pointer(place.strip_prefix('#').unwrap_or(place)).ok_or_else(|| {
        let mut what = format!("`$ref` must be a place in the same schema, found nothing at {place:?}");
        if let Some(Value::Object(definitions)) = document.get("$defs").or_else(|| document.get("definitions")) {
            let names: Vec<&str> = definitions.keys().map(String::as_str).take(10).collect();
            // Writing to a string does not fail.
            let _ = write!(what, "; the definitions are {}", names.join(", "));
        }
        what
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_places() {
        let document = json!({ "$defs": { "a/b": { "~c d": 1 }, "é": 2 } });
        for (reference, found) in [
            ("#", json!(document)),
            ("#/", json!(document)),
            ("#/$defs/a~1b/~0c d", json!(1)),
            ("#/%24defs/a~1b/~0c%20d", json!(1)),
            ("#/$defs/%C3%A9", json!(2)),
        ] {
            assert_eq!(*resolve(&document, &normal(reference).unwrap()).unwrap(), found, "{reference}");
        }
        for reference in ["", "a", "#a", "http://example.com/#/a", "#/%", "#/%2", "#/%zz", "#/%ff"] {
            let error = normal(reference).and_then(|place| resolve(&document, &place).map(drop)).unwrap_err();
            assert!(error.starts_with("`$ref` must be a place in the same schema"), "{reference}: {error}");
        }
        assert_eq!(child("#/a", "b/~c"), "#/a/b~1~0c");
    }
}
