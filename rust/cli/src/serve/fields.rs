//! Reading fields of a request: every complaint names the field, says what it must be and what was found.
//!
//! A field that is missing or `null` has its default, as OpenAI has it. Fields that are not known are not looked at: clients send new
//! ones before servers know them.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::{ApiError, ApiResult};

/// How much of a wrong value is told.
const MAX_SHOWN: usize = 40;

/// An object of a request and where it stands in it.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// A value for a message: short, so that an error is not as long as the request.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(MAX_SHOWN) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

/// 400: `param` must be `expected`.
pub(super) fn wrong(param: &str, expected: &str, found: &Value) -> ApiError {
    ApiError::field(param, format!("{param} must be {expected}, found {}", shown(found)))
}

impl<'a> Fields<'a> {
    /// The fields of the value at `path` (empty for the request itself).
    ///
    /// # Errors
    /// 400 when it is no object.
    pub(super) fn of(value: &'a Value, path: &str) -> ApiResult<Fields<'a>> {
        match value {
            Value::Object(map) => Ok(Fields { map, path: path.to_owned() }),
            _ if path.is_empty() => {
                let message = format!("the request must be a JSON object, found {}", shown(value));
                Err(ApiError { param: None, ..ApiError::field("", message) })
            }
            _ => Err(wrong(path, "an object", value)),
        }
    }

    /// The path of the field `name`.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// 400: the field must be `expected`.
    pub(super) fn wrong(&self, name: &str, expected: &str) -> ApiError {
        match self.get(name) {
            Some(found) => wrong(&self.path(name), expected, found),
            None => ApiError::field(self.path(name), format!("{} is missing; it must be {expected}", self.path(name))),
        }
    }

    fn read<T>(&self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> ApiResult<Option<T>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(name, expected)),
        }
    }

    /// A number in `range`.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<f64>) -> ApiResult<Option<f64>> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |value| value.as_f64().filter(|number| range.contains(number)))
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, name: &str, range: RangeInclusive<u64>) -> ApiResult<Option<u64>> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.read(name, &expected, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    /// A whole number in `range` that counts something in memory.
    pub(super) fn count(&self, name: &str, range: RangeInclusive<u64>) -> ApiResult<Option<usize>> {
        Ok(self.integer(name, range)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    }

    /// A truth value.
    pub(super) fn boolean(&self, name: &str) -> ApiResult<Option<bool>> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> ApiResult<Option<&'a str>> {
        self.read(name, "a string", Value::as_str)
    }

    /// One of several texts.
    pub(super) fn one_of(&self, name: &str, known: &[&'static str]) -> ApiResult<Option<&'static str>> {
        let names: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        let expected = format!("one of {}", names.join(", "));
        self.read(name, &expected, |value| known.iter().copied().find(|known| value == known))
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> ApiResult<Option<&'a Vec<Value>>> {
        self.read(name, "a list", Value::as_array)
    }

    /// An object.
    pub(super) fn object(&self, name: &str) -> ApiResult<Option<Fields<'a>>> {
        self.get(name).map(|value| Fields::of(value, &self.path(name))).transpose()
    }

    /// Names and values of an object that is used as a table.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// The objects of a list, each with its path; empty when the list is missing.
    pub(super) fn objects(&self, name: &str, most: usize) -> ApiResult<Vec<Fields<'a>>> {
        let list = self.list(name)?.map_or(&[][..], Vec::as_slice);
        if list.len() > most {
            return Err(self.wrong(name, &format!("a list of at most {most}")));
        }
        let path = self.path(name);
        list.iter().enumerate().map(|(at, value)| Fields::of(value, &format!("{path}[{at}]"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn complaints_name_the_field() {
        let value = json!({
            "t": -1, "n": 1.5, "big": 1e308, "s": 5, "list": [1], "deep": { "inner": "x" }, "null": null, "long": "é".repeat(90)
        });
        let fields = Fields::of(&value, "").unwrap();
        let message = |result: ApiResult<()>| result.map_err(|error| (error.param.unwrap_or_default(), error.message));
        let no = |param: &str, text: &str| Err((param.to_owned(), text.to_owned()));
        let number = |name| message(fields.number(name, 0.0..=2.0).map(drop));
        assert_eq!(number("t"), no("t", "t must be a number from 0 to 2, found -1"));
        assert!(number("big").is_err());
        assert_eq!((number("null"), number("absent")), (Ok(()), Ok(())));
        let integer = |name| message(fields.integer(name, 0..=8).map(drop));
        assert_eq!(integer("n"), no("n", "n must be an integer from 0 to 8, found 1.5"));
        assert_eq!(message(fields.text("s").map(drop)), no("s", "s must be a string, found 5"));
        let deep = fields.object("deep").unwrap().unwrap();
        let inner = message(deep.boolean("inner").map(drop));
        assert_eq!(inner, no("deep.inner", "deep.inner must be true or false, found \"x\""));
        let list = message(fields.objects("list", 4).map(drop));
        assert_eq!(list, no("list[0]", "list[0] must be an object, found 1"));
        assert!(message(fields.objects("list", 0).map(drop)).is_err());
        let (_, long) = message(fields.number("long", 0.0..=1.0).map(drop)).unwrap_err();
        assert!(long.ends_with('…') && long.chars().count() < 100, "{long}");
        let (param, missing) = message(Err(fields.wrong("absent", "a list"))).unwrap_err();
        assert_eq!((param.as_str(), missing.as_str()), ("absent", "absent is missing; it must be a list"));
    }
}
