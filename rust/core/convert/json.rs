//! JSON files of a checkpoint: read with limits, and values taken out with errors that name file, key, what was expected and what was
//! found. `null` is as if the key were not there, as the libraries that write these files mean it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::gguf::{io_error, kind, model_error};
use crate::{Error, Result};

/// The bytes of a file of at most `limit` bytes; `None` where there is none.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, error)),
    };
    // Opening a pipe would wait for whoever writes to it.
    if let Some(found) = kind(&metadata) {
        return Err(model_error(path, format!("expected a regular file, found {found}")));
    }
    if metadata.len() > limit {
        let found = metadata.len();
        return Err(model_error(path, format!("expected a file of at most {limit} bytes, found {found}")));
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(|error| io_error(path, error))?.take(limit + 1);
    file.read_to_end(&mut bytes).map_err(|error| io_error(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(model_error(path, format!("expected a file of at most {limit} bytes, found more")));
    }
    Ok(Some(bytes))
}

/// A JSON object in a file.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) path: PathBuf,
    /// Names of the objects it is in, each with a dot behind.
    inside: String,
    pub(super) map: Map<String, Value>,
}

impl Object {
    /// The object that a file is; `None` where there is no file.
    pub(super) fn open(path: &Path, limit: u64) -> Result<Option<Object>> {
        let Some(bytes) = read(path, limit)? else { return Ok(None) };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Some(Object { path: path.into(), inside: String::new(), map })),
            Ok(other) => Err(model_error(path, format!("expected a JSON object, found {}", describe(&other)))),
            Err(error) => Err(model_error(path, format!("expected JSON, found: {error}"))),
        }
    }

    /// An object without keys, for a file that is not there.
    pub(super) fn empty(path: &Path) -> Object {
        Object { path: path.into(), inside: String::new(), map: Map::new() }
    }

    /// An error about the file.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        model_error(&self.path, what)
    }

    /// An error about a key.
    pub(super) fn wrong(&self, key: &str, what: impl std::fmt::Display) -> Error {
        self.error(format!("key {:?} {what}", format!("{}{key}", self.inside)))
    }

    fn mismatch(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.wrong(key, format_args!("must be {expected}, found {}", describe(found)))
    }

    /// The error for keys of which none is there.
    pub(super) fn missing(&self, keys: &[&str], expected: &str) -> Error {
        let names: Vec<String> = keys.iter().map(|key| format!("{:?}", format!("{}{key}", self.inside))).collect();
        self.error(format!("key {} is missing: expected {expected}", names.join(" or ")))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The first of several names of a key that the object has.
    pub(super) fn first<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        keys.iter().copied().find(|key| self.get(key).is_some())
    }

    /// The object of a key.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let inside = format!("{}{key}.", self.inside);
                Ok(Some(Object { path: self.path.clone(), inside, map: map.clone() }))
            }
            Some(other) => Err(self.mismatch(key, "an object", other)),
        }
    }

    /// The array of a key.
    pub(super) fn array(&self, key: &str) -> Result<Option<&Vec<Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.mismatch(key, "an array", other)),
        }
    }

    /// The array of strings of a key.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(items) = self.array(key)? else { return Ok(None) };
        let strings =
            items.iter().map(|item| item.as_str().ok_or_else(|| self.mismatch(key, "an array of strings", item)));
        strings.collect::<Result<_>>().map(Some)
    }

    /// The array of finite numbers of a key, as f32.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let Some(items) = self.array(key)? else { return Ok(None) };
        let number = |item: &Value| {
            let value = item.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
            value.ok_or_else(|| self.mismatch(key, "an array of finite numbers", item))
        };
        items.iter().map(number).collect::<Result<_>>().map(Some)
    }

    /// The array of counts of a key.
    pub(super) fn counts(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let Some(items) = self.array(key)? else { return Ok(None) };
        let number =
            |item: &Value| count(item).ok_or_else(|| self.mismatch(key, "an array of integers below 2^32", item));
        items.iter().map(number).collect::<Result<_>>().map(Some)
    }

    /// The string of a key.
    pub(super) fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mismatch(key, "a string", other)),
        }
    }

    /// The count of a key.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => {
                count(value).map(Some).ok_or_else(|| self.mismatch(key, "an integer from 0 to 4294967295", value))
            }
        }
    }

    /// The same, which must be there.
    pub(super) fn need_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| self.missing(&[key], "an integer"))
    }

    /// The number of a key, finite as f32.
    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|value| (*value as f32).is_finite()) {
                Some(value) => Ok(Some(value)),
                None => Err(self.mismatch(key, "a finite number", value)),
            },
        }
    }

    /// The flag of a key.
    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.mismatch(key, "true or false", other)),
        }
    }
}

/// A number without fraction, however it is written.
fn count(value: &Value) -> Option<u32> {
    let whole =
        |number: f64| (number.fract() == 0.0 && (0.0..4_294_967_296.0).contains(&number)).then_some(number as u32);
    value.as_u64().and_then(|number| u32::try_from(number).ok()).or_else(|| whole(value.as_f64()?))
}

/// A value in few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(map) => format!("an object of {}", map.len()),
        Value::String(text) => crate::gguf::Quoted(text).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        Object::open(&path, 1 << 20).unwrap().unwrap()
    }

    #[test]
    fn values_are_checked_and_errors_name_their_place() {
        let config = object(r#"{"a": 3, "b": 3.0, "c": null, "d": {"e": "x", "f": -1}, "g": 1e60}"#);
        assert_eq!(
            (config.u32("a").unwrap(), config.u32("b").unwrap(), config.u32("c").unwrap()),
            (Some(3), Some(3), None)
        );
        let inner = config.object("d").unwrap().unwrap();
        for (error, expected) in [
            (inner.u32("f").unwrap_err(), r#"key "d.f" must be an integer from 0 to 4294967295, found -1"#),
            (inner.bool("e").unwrap_err(), r#"key "d.e" must be true or false, found "x""#),
            (config.f64("g").unwrap_err(), r#"key "g" must be a finite number, found 1e+60"#),
            (config.missing(&["h", "i"], "a number"), r#"key "h" or "i" is missing: expected a number"#),
        ] {
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.to_string().contains("config.json"), "{error}");
        }
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        assert!(Object::open(&path, 10).unwrap().is_none());
        for (text, expected) in [
            ("[1]", "expected a JSON object"),
            ("{", "expected JSON"),
            ("{\"a\":1234567}", "at most 10 bytes, found 13"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Object::open(&path, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Object::open(folder.path(), 10).unwrap_err().to_string();
        assert!(error.contains("found a folder"), "{error}");
    }
}
