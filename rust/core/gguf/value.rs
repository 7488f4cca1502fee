//! Metadata values. Arrays stay where they are in the file and are decoded while iterating.

use super::mapped::Bytes;

/// Type of a metadata value, with the id it has in a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type with an id.
    pub const fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        const ALL: [ValueType; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        if id < ALL.len() as u32 { Some(ALL[id as usize]) } else { None }
    }

    /// Id in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a number or bool; `None` for strings and arrays.
    pub const fn bytes(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }

    /// Name for messages, `"u32"`.
    pub const fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            String => "string",
            Array => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        }
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Raw bytes: files exist whose strings are not UTF-8.
    String(Box<[u8]>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Its type.
    pub fn ty(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The type in words: `"u32"`, `"array of 7 strings"`.
    pub fn describe(&self) -> String {
        match self {
            Value::Array(array) => format!("array of {} {}", array.len(), array.element()),
            other => other.ty().to_string(),
        }
    }

    /// Any integer type, as a number that holds them all.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// Decodes a number or bool; `None` for other types or the wrong number of bytes. Any non-zero bool byte is true.
    pub(super) fn scalar(ty: ValueType, bytes: &[u8]) -> Option<Value> {
        Some(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::Bool => Value::Bool(u8::from_le_bytes(bytes.try_into().ok()?) != 0),
            ValueType::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::String | ValueType::Array => return None,
        })
    }

    /// Appends the value as a file has it, without its type; arrays begin with element type and count.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => out.extend(v.to_le_bytes()),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::String(v) => {
                out.extend((v.len() as u64).to_le_bytes());
                out.extend_from_slice(v);
            }
            Value::Array(array) => {
                out.extend(array.element.id().to_le_bytes());
                out.extend((array.count as u64).to_le_bytes());
                out.extend_from_slice(&array.bytes);
            }
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
        }
    }

    /// Bytes that [`encode`](Value::encode) appends.
    pub(super) fn encoded_bytes(&self) -> u64 {
        match self {
            Value::String(v) => 8 + v.len() as u64,
            Value::Array(array) => 12 + array.bytes.len() as u64,
            other => other.ty().bytes().unwrap_or(0) as u64,
        }
    }
}

macro_rules! value_from {
    ($( $type:ty => $variant:ident, )*) => { $(
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value)
            }
        }
    )* };
}
value_from! { u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool, u64 => U64,
i64 => I64, f64 => F64, Array => Array, }

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.as_bytes().into())
    }
}

/// An array of numbers, bools or strings: element type, count and the bytes as the file has them. Cheap to clone.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    element: ValueType,
    count: usize,
    bytes: Bytes,
}

impl Array {
    /// `bytes` must hold exactly `count` elements; the reader has checked that.
    pub(super) fn new(element: ValueType, count: usize, bytes: Bytes) -> Array {
        Array { element, count, bytes }
    }

    /// An array of strings.
    pub fn from_strings<S: AsRef<[u8]>>(items: impl IntoIterator<Item = S>) -> Array {
        let (mut count, mut bytes) = (0, Vec::new());
        for item in items {
            bytes.extend((item.as_ref().len() as u64).to_le_bytes());
            bytes.extend_from_slice(item.as_ref());
            count += 1;
        }
        Array { element: ValueType::String, count, bytes: bytes.into() }
    }

    /// Type of the elements; never an array.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements as the file has them: little-endian numbers, or strings each behind its length (u64).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements one by one.
    pub fn iter(&self) -> Elements<'_> {
        Elements { element: self.element, left: self.count, bytes: &self.bytes }
    }

    /// The strings, when it is an array of strings.
    pub fn strings(&self) -> Option<StringArray<'_>> {
        (self.element == ValueType::String).then_some(StringArray { count: self.count, bytes: &self.bytes })
    }
}

macro_rules! array_from {
    ($( $type:ty => $element:ident, )*) => { $(
        impl From<&[$type]> for Array {
            fn from(items: &[$type]) -> Array {
                let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
                Array { element: ValueType::$element, count: items.len(), bytes: bytes.into() }
            }
        }
    )* };
}
array_from! { u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, u64 => U64, i64 => I64, f64 => F64, }

impl From<&[bool]> for Array {
    fn from(items: &[bool]) -> Array {
        let bytes: Vec<u8> = items.iter().map(|item| u8::from(*item)).collect();
        Array { element: ValueType::Bool, count: items.len(), bytes: bytes.into() }
    }
}

/// The elements of an [`Array`] as values.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    element: ValueType,
    left: usize,
    bytes: &'a [u8],
}

impl Iterator for Elements<'_> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        match self.element.bytes() {
            Some(bytes) => {
                let (item, rest) = self.bytes.split_at_checked(bytes)?;
                self.bytes = rest;
                Value::scalar(self.element, item)
            }
            None => next_string(&mut self.bytes).map(|item| Value::String(item.into())),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// An array of strings in the file. Items are raw bytes: vocabularies contain strings that are not UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct StringArray<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> StringArray<'a> {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> Strings<'a> {
        Strings { left: self.count, bytes: self.bytes }
    }
}

impl<'a> IntoIterator for StringArray<'a> {
    type Item = &'a [u8];
    type IntoIter = Strings<'a>;

    fn into_iter(self) -> Strings<'a> {
        self.iter()
    }
}

/// Iterates over a [`StringArray`]. The lengths were checked when the file was opened; should another process change the
/// mapped file since, the iteration ends early instead of leaving the array.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        next_string(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// Takes a length (u64) and that many bytes off the front; `None` when they are not there.
pub(super) fn next_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (item, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_ids_are_their_positions() {
        for id in 0..13 {
            assert_eq!(ValueType::from_id(id).map(ValueType::id), Some(id));
        }
        assert_eq!(ValueType::from_id(13), None);
        assert_eq!(ValueType::from_id(u32::MAX), None);
    }

    #[test]
    fn arrays_give_back_what_went_in() {
        let array = Array::from([1i32, -2, i32::MIN].as_slice());
        let items: Vec<Value> = array.iter().collect();
        assert_eq!(items, [Value::I32(1), Value::I32(-2), Value::I32(i32::MIN)]);
        let array = Array::from_strings([b"".as_slice(), b"a", b"\xff\xfe"]);
        let items: Vec<&[u8]> = array.strings().expect("strings").iter().collect();
        assert_eq!(items, [b"".as_slice(), b"a", b"\xff\xfe"]);
        assert_eq!(array.iter().count(), 3);
        assert!(Array::from([true].as_slice()).strings().is_none());
    }

    #[test]
    fn a_changed_length_ends_the_iteration() {
        let mut bytes = Array::from_strings(["abc", "def"]).bytes().to_vec();
        bytes[0] = 200;
        let array = Array::new(ValueType::String, 2, bytes.into());
        assert_eq!(array.strings().expect("strings").iter().count(), 0);
        assert_eq!(array.iter().count(), 0);
    }
}
