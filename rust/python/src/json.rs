//! Python values as JSON, for chat templates, and back.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use serde_json::{Map, Value};

/// Deepest nesting of a message; real ones (tool schemas) stay below 20.
const MAX_DEPTH: usize = 64;

/// Most values in one argument. A list that holds another one twice, and so on, is small in Python and huge as JSON.
const MAX_VALUES: usize = 1 << 20;

/// Converts `None`, `bool`, `int`, `float`, `str`, lists, tuples and mappings with string keys.
///
/// # Errors
/// `TypeError` that names the place and the type for anything else.
pub(crate) fn from_python(value: &Bound<'_, PyAny>, place: &str) -> PyResult<Value> {
    let mut left = MAX_VALUES;
    convert(value, place, 0, &mut left)
}

/// [`from_python`] for a list.
pub(crate) fn list(values: &Bound<'_, PyList>, place: &str) -> PyResult<Vec<Value>> {
    let mut left = MAX_VALUES;
    values.iter().enumerate().map(|(i, value)| convert(&value, &format!("{place}[{i}]"), 0, &mut left)).collect()
}

/// [`list`] of mappings only, as the messages of a conversation are.
pub(crate) fn objects(values: &Bound<'_, PyList>, place: &str) -> PyResult<Vec<Value>> {
    let objects = list(values, place)?;
    match objects.iter().position(|value| !value.is_object()) {
        Some(i) => Err(PyTypeError::new_err(format!("{place}[{i}]: expected a mapping, found {}", objects[i]))),
        None => Ok(objects),
    }
}

/// [`from_python`] for a dictionary.
pub(crate) fn object(values: &Bound<'_, PyDict>, place: &str) -> PyResult<Map<String, Value>> {
    match from_python(values.as_any(), place)? {
        Value::Object(map) => Ok(map),
        _ => Err(PyTypeError::new_err(format!("{place}: expected a mapping"))),
    }
}

/// The Python value of a JSON value.
///
/// # Errors
/// Those of Python's `json.loads`.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (value.to_string(),))
}

/// `left` is how many values may still come.
fn convert(value: &Bound<'_, PyAny>, place: &str, depth: usize, left: &mut usize) -> PyResult<Value> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| PyTypeError::new_err(format!("{place}: more than {MAX_VALUES} values in one argument")))?;
    if depth > MAX_DEPTH {
        return Err(PyTypeError::new_err(format!("{place}: nested deeper than {MAX_DEPTH} levels")));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::String(text.to_str()?.to_owned()));
    }
    if value.cast::<PyInt>().is_ok() {
        return match (value.extract::<i64>(), value.extract::<u64>()) {
            (Ok(number), _) => Ok(number.into()),
            (_, Ok(number)) => Ok(number.into()),
            _ => Err(PyTypeError::new_err(format!("{place}: expected an integer of 64 bits, found {value}"))),
        };
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return serde_json::Number::from_f64(number.value()).map(Value::Number).ok_or_else(|| {
            PyTypeError::new_err(format!("{place}: expected a finite number, found {}", number.value()))
        });
    }
    if value.cast::<PyList>().is_ok() || value.cast::<PyTuple>().is_ok() {
        let items = value.try_iter()?.enumerate();
        return items.map(|(i, item)| convert(&item?, &format!("{place}[{i}]"), depth + 1, left)).collect();
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        let mut map = Map::new();
        for pair in mapping.items()?.iter() {
            let (key, item): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let key: String = key.extract().map_err(|_| PyTypeError::new_err(format!("{place}: keys must be str")))?;
            let item = convert(&item, &format!("{place}[{key:?}]"), depth + 1, left)?;
            map.insert(key, item);
        }
        return Ok(Value::Object(map));
    }
    let found = value.get_type().qualname()?;
    Err(PyTypeError::new_err(format!("{place}: expected None, bool, int, float, str, list or mapping, found {found}")))
}
