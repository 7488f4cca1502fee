//! Typed access to metadata: `Ok(None)` without the key, an error naming both types when it has another one.

use super::Gguf;
use super::reader::Quoted;
use super::value::{Array, StringArray, Value, ValueType};
use crate::{Error, Result};

impl Gguf {
    /// Any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value is not an integer from 0 to 2^32 - 1.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key, "an integer from 0 to 4294967295")
    }

    /// Any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value is not an integer from 0 to 2^64 - 1.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.integer(key, "an integer from 0")
    }

    /// Any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value is not an integer that is a `usize`.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.integer(key, "an integer from 0")
    }

    /// Any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value is not an integer that is an `i64`.
    pub fn i64(&self, key: &str) -> Result<Option<i64>> {
        self.integer(key, "an integer")
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        self.typed(key, expected, |value| T::try_from(value.integer()?).ok())
    }

    /// An f32, or an f64 rounded to one. May be NaN or infinite.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "an f32", |value| match value {
            Value::F32(value) => Some(*value),
            Value::F64(value) => Some(*value as f32),
            _ => None,
        })
    }

    /// A bool.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string, which must be UTF-8.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type or is not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(key)? else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|error| {
            let what = format!(
                "key {} must be UTF-8, found an invalid byte at {} of the string",
                Quoted(key),
                error.valid_up_to()
            );
            self.key_error(key, what)
        })
    }

    /// A string of any bytes.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        self.typed(key, "a string", |value| match value {
            Value::String(value) => Some(&**value),
            _ => None,
        })
    }

    /// An array of any type.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value is not an array.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings; nothing is copied.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn strings(&self, key: &str) -> Result<Option<StringArray<'_>>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(array) => array.strings(),
            _ => None,
        })
    }

    /// An array of f32, copied.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.numbers(key, ValueType::F32, "an array of f32", f32::from_le_bytes)
    }

    /// An array of i32, copied.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.numbers(key, ValueType::I32, "an array of i32", i32::from_le_bytes)
    }

    /// An array of bools, copied.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.numbers(key, ValueType::Bool, "an array of bools", |[byte]: [u8; 1]| byte != 0)
    }

    /// An array of any integer type whose values are all a `usize`, copied: hyper-parameters by layer.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the value has another type or an element does not fit.
    pub fn usizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let items: Option<Vec<usize>> = array.iter().map(|value| usize::try_from(value.integer()?).ok()).collect();
        items.map(Some).ok_or_else(|| self.type_error(key, "an array of integers from 0"))
    }

    fn numbers<T, const N: usize>(
        &self,
        key: &str,
        ty: ValueType,
        expected: &str,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Option<Vec<T>>> {
        self.typed(key, expected, |value| match value {
            Value::Array(array) if array.element() == ty => {
                Some(array.bytes().as_chunks::<N>().0.iter().map(|bytes| decode(*bytes)).collect())
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => get(value).map(Some).ok_or_else(|| self.type_error(key, expected)),
        }
    }

    fn type_error(&self, key: &str, expected: &str) -> Error {
        let found = match self.get(key) {
            None => "nothing".into(),
            Some(value) => match value.integer() {
                Some(number) => format!("{number} ({})", value.ty()),
                None => value.describe(),
            },
        };
        self.key_error(key, format!("key {} must be {expected}, found {found}", Quoted(key)))
    }
}
