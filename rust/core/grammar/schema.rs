//! JSON schemas: checked, and brought into the form in which llguidance takes them at their word.
//!
//! llguidance ignores what its draft of JSON Schema does not know, follows `$ref` by plain splitting, holds numbers as f64 and takes
//! `oneOf` only where it can tell the options apart without following references. So the schema is walked first, along the
//! references: unknown and unsupported keywords are refused by name and place, references are resolved, and a `oneOf` whose options
//! cannot both hold becomes an `anyOf`.

mod check;
mod disjoint;
mod finite;
mod intersect;
mod pointer;

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::MAX_SOURCE;
use crate::{Error, Result};
use check::{Keyword, keyword};
use intersect::Of;
use pointer::{child, resolve};

/// Arrays and objects inside one another at most, in the schema as it is written.
const MAX_DEPTH: usize = 64;

/// Values in the schema at most, those that references repeat included.
const MAX_VALUES: usize = 100_000;

/// Properties of one object at most: they are compiled one inside the other.
const MAX_PROPERTIES: usize = 1_000;

/// Patterns of names of one object at most: each is compared with all others.
const MAX_PATTERNS: usize = 32;

/// Patterns, formats and lengths that must hold for one text at once at most.
const MAX_CONDITIONS: usize = 8;

/// White space between the parts of JSON: none, one space, or a new line with its indentation. So a model may write compact JSON,
/// JSON as Python's `json.dumps` writes it, and indented JSON, as llama.cpp allows; and it cannot go on for ever, as it can where
/// any white space is allowed. Outlines allows one space.
const WHITE_SPACE: &str = r" |\n[ \t]{0,20}";

/// Which white space JSON may have between its signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spaces {
    /// A little, as models like it.
    Usual,
    /// One space behind `,` and `:`, as `json.dumps` of Python writes them and as calls of tools look in what models learn from.
    Fixed,
}

/// The schema for llguidance.
///
/// # Errors
/// [`Error::Grammar`] that names the keyword and its place.
pub(super) fn prepare(schema: &Value, spaces: Spaces) -> Result<Value> {
    measure(schema)?;
    let mut walk =
        Walk { document: schema, names: HashMap::new(), pending: VecDeque::new(), required: Vec::new(), values: 0 };
    let mut root = match schema {
        Value::Bool(_) => json!({ "allOf": [schema] }),
        _ => walk.schema(schema, "#", 0)?,
    };
    let mut definitions = Map::new();
    while let Some((pointer, name)) = walk.pending.pop_front() {
        let target = resolve(schema, &pointer).map_err(Error::Grammar)?;
        let prepared = match target {
            Value::Bool(_) => target.clone(),
            _ => walk.schema(target, &pointer, 0)?,
        };
        definitions.insert(name, prepared);
    }
    for (definition, name) in &walk.required {
        if let Some(definition) = definitions.get_mut(definition) {
            require(definition, name);
        }
    }
    if let Some(name) = finite::endless(&definitions) {
        let place = walk.names.iter().find(|(_, other)| *other == name).map_or("#", |(place, _)| place);
        return Err(wrong(place, "a value would have to hold another one of the same kind, without an end"));
    }
    if intersect::conditions(&root, &definitions, Of::Multiple) > 1 {
        return Err(Error::Grammar("schema: keyword `multipleOf` is supported once for one number".into()));
    }
    let conditions = intersect::conditions(&root, &definitions, Of::Text);
    if conditions > MAX_CONDITIONS {
        let what =
            format!("at most {MAX_CONDITIONS} patterns, formats and lengths may hold for one text, found {conditions}");
        return Err(Error::Grammar(format!("schema: {what}")));
    }
    if let Value::Object(root) = &mut root {
        root.insert("$defs".into(), Value::Object(definitions));
        let mut options = match spaces {
            Spaces::Usual => json!({ "whitespace_pattern": WHITE_SPACE }),
            Spaces::Fixed => json!({ "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false }),
        };
        if !needs_escapes(schema) {
            // Without `\u` every text has one spelling, so that a key cannot be spelled in a way that hides it from the others.
            options["json_allowed_escapes"] = "nrbtf\\\"".into();
        }
        root.insert("x-guidance".into(), options);
    }
    Ok(root)
}

/// Bounds depth, values and bytes before anything recurses.
fn measure(schema: &Value) -> Result<()> {
    let (mut values, mut bytes) = (0usize, 0usize);
    let mut level: Vec<&Value> = vec![schema];
    let mut depth = 0;
    while !level.is_empty() {
        if depth > MAX_DEPTH {
            return Err(Error::Grammar(format!("schema must be nested at most {MAX_DEPTH} deep, found more")));
        }
        let mut next = Vec::new();
        for value in level {
            values += 1;
            match value {
                Value::String(text) => bytes += text.len(),
                Value::Array(items) => next.extend(items),
                Value::Object(fields) => {
                    bytes += fields.keys().map(String::len).sum::<usize>();
                    next.extend(fields.values());
                }
                _ => {}
            }
        }
        if values + next.len() > MAX_VALUES || bytes > MAX_SOURCE {
            let what =
                format!("schema must have at most {MAX_VALUES} values and {MAX_SOURCE} bytes of text, found more");
            return Err(Error::Grammar(what));
        }
        level = next;
        depth += 1;
    }
    Ok(())
}

/// Whether a text that the schema names has characters that JSON can only write as `\u`.
fn needs_escapes(schema: &Value) -> bool {
    let control = |text: &str| {
        text.chars().any(|char| char.is_ascii_control() && !matches!(char, '\n' | '\r' | '\t' | '\u{8}' | '\u{c}'))
    };
    match schema {
        Value::String(text) => control(text),
        Value::Array(items) => items.iter().any(needs_escapes),
        Value::Object(fields) => fields.iter().any(|(key, value)| control(key) || needs_escapes(value)),
        _ => false,
    }
}

/// A walk over all schemas that the root refers to.
struct Walk<'s> {
    document: &'s Value,
    /// The definition that stands for a place of the document.
    names: HashMap<String, String>,
    /// Places that are still to be walked, and their definitions.
    pending: VecDeque<(String, String)>,
    /// Definitions and the properties that they shall require.
    required: Vec<(String, String)>,
    /// Values so far.
    values: usize,
}

impl Walk<'_> {
    /// The schema at `place`, prepared. `depth` is bounded by that of the document.
    fn schema(&mut self, schema: &Value, place: &str, depth: usize) -> Result<Value> {
        self.count(place)?;
        let fields = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(fields) => fields,
            _ => return Err(wrong(place, "a schema must be an object, true or false")),
        };
        let mut prepared = Map::new();
        for (key, value) in fields {
            let at = child(place, key);
            let unknown =
                || wrong(&at, &format!("keyword `{key}` is not known; remove it, or put it where it belongs"));
            let handled = keyword(key).ok_or_else(unknown)?;
            match handled {
                Keyword::Annotation => {}
                Keyword::Unsupported => return Err(wrong(&at, &format!("keyword `{key}` is not supported"))),
                Keyword::False => {
                    if *value != Value::Bool(false) {
                        return Err(wrong(&at, &format!("keyword `{key}` is not supported")));
                    }
                }
                Keyword::Plain(check) => {
                    check(value).map_err(|what| wrong(&at, &format!("`{key}` {what}")))?;
                    self.values += 1;
                    match check::stricter(value).filter(|_| key == "format") {
                        Some(pattern) if fields.contains_key("pattern") => {
                            also(&mut prepared, json!([{ "type": "string", "pattern": pattern }]));
                        }
                        Some(pattern) => drop(prepared.insert("pattern".to_owned(), pattern.into())),
                        None => drop(prepared.insert(key.clone(), value.clone())),
                    }
                }
                Keyword::Values => {
                    check::values(key, value).map_err(|what| wrong(&at, &what))?;
                    self.count_all(value, &at)?;
                    prepared.insert(key.clone(), value.clone());
                }
                Keyword::Schema if key == "items" && value.is_array() => {
                    prepared.insert(key.clone(), self.list(key, value, &at, depth)?);
                }
                Keyword::Schema => {
                    prepared.insert(key.clone(), self.schema(value, &at, depth + 1)?);
                }
                Keyword::List => {
                    let mut options = self.list(key, value, &at, depth)?;
                    if key == "oneOf" {
                        self.tell_apart(value, &mut options, fields.get("discriminator"), &at)?;
                        // There may be an `anyOf`, or an `allOf`, beside it.
                        also(&mut prepared, json!([{ "anyOf": options }]));
                    } else if key == "allOf" {
                        also(&mut prepared, options);
                    } else {
                        prepared.insert(key.clone(), options);
                    }
                }
                Keyword::Map => {
                    prepared.insert(key.clone(), self.map(key, value, &at, depth)?);
                }
                Keyword::Reference => {
                    let name = self.reference(value, &at)?;
                    prepared.insert(key.clone(), Value::String(format!("#/$defs/{name}")));
                }
            }
        }
        Ok(Value::Object(prepared))
    }

    fn list(&mut self, key: &str, value: &Value, at: &str, depth: usize) -> Result<Value> {
        let Value::Array(items) = value else { return Err(wrong(at, &format!("`{key}` must be an array of schemas"))) };
        let item = |(index, item)| self.schema(item, &child(at, &format!("{index}")), depth + 2);
        Ok(Value::Array(items.iter().enumerate().map(item).collect::<Result<_>>()?))
    }

    fn map(&mut self, key: &str, value: &Value, at: &str, depth: usize) -> Result<Value> {
        let Value::Object(fields) = value else {
            return Err(wrong(at, &format!("`{key}` must be an object of schemas")));
        };
        let most = if key == "patternProperties" { MAX_PATTERNS } else { MAX_PROPERTIES };
        if fields.len() > most {
            return Err(wrong(at, &format!("`{key}` must have at most {most} entries, found {}", fields.len())));
        }
        let mut prepared = Map::new();
        for (name, schema) in fields {
            if key == "patternProperties" {
                super::regex::check(name).map_err(|what| wrong(at, &format!("`{key}`: {what}")))?;
            }
            prepared.insert(name.clone(), self.schema(schema, &child(at, name), depth + 2)?);
        }
        Ok(Value::Object(prepared))
    }

    /// Makes sure that no two of the `options` of a `oneOf`, which are `prepared`, can hold at once.
    fn tell_apart(
        &mut self,
        options: &Value,
        prepared: &mut Value,
        discriminator: Option<&Value>,
        at: &str,
    ) -> Result<()> {
        if disjoint::all(self.document, options, None) {
            return Ok(());
        }
        // Pydantic leaves the property that tells options apart optional where it has a default. Writing it always is one of the
        // ways to be valid, and then it does tell them apart.
        let name = discriminator.and_then(|discriminator| discriminator.get("propertyName")).and_then(Value::as_str);
        let Some(name) = name.filter(|name| disjoint::all(self.document, options, Some(name))) else {
            let what = "keyword `oneOf` is supported where no two options can hold at once (other types, or a required property \
                        with other constants); use `anyOf`";
            return Err(wrong(at, what));
        };
        let pairs = options.as_array().into_iter().flatten().zip(prepared.as_array_mut().into_iter().flatten());
        for (option, prepared) in pairs {
            match disjoint::target(self.document, option).1 {
                Some(place) => {
                    let definition = self.definition(place);
                    self.required.push((definition, name.to_owned()));
                }
                None => require(prepared, name),
            }
        }
        Ok(())
    }

    /// The definition that a `$ref` means.
    fn reference(&mut self, value: &Value, at: &str) -> Result<String> {
        let Value::String(reference) = value else { return Err(wrong(at, "`$ref` must be a text")) };
        let place = pointer::normal(reference).map_err(|what| wrong(at, &what))?;
        resolve(self.document, &place).map_err(|what| wrong(at, &what))?;
        Ok(self.definition(place))
    }

    /// The name of the definition that stands for `place`.
    fn definition(&mut self, place: String) -> String {
        if let Some(name) = self.names.get(&place) {
            return name.clone();
        }
        let name = format!("d{}", self.names.len());
        self.names.insert(place.clone(), name.clone());
        self.pending.push_back((place, name.clone()));
        name
    }

    fn count(&mut self, place: &str) -> Result<()> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(wrong(place, &format!("references must not repeat more than {MAX_VALUES} values")));
        }
        Ok(())
    }

    fn count_all(&mut self, value: &Value, place: &str) -> Result<()> {
        self.count(place)?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.count_all(item, place)),
            Value::Object(fields) => fields.values().try_for_each(|item| self.count_all(item, place)),
            _ => Ok(()),
        }
    }
}

/// Adds schemas, an array, that must hold as well.
fn also(schema: &mut Map<String, Value>, more: Value) {
    if let (Value::Array(items), Value::Array(more)) = (schema.entry("allOf").or_insert_with(|| json!([])), more) {
        items.extend(more);
    }
}

/// Makes the property `name` of a prepared schema of objects a required one.
fn require(schema: &mut Value, name: &str) {
    if let Some(fields) = schema.as_object_mut()
        && let Value::Array(names) = fields.entry("required").or_insert_with(|| json!([]))
        && !names.iter().any(|other| other == name)
    {
        names.push(name.into());
    }
}

fn wrong(place: &str, what: &str) -> Error {
    Error::Grammar(format!("schema: {what} (at {place})"))
}
