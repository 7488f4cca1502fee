//! Tokens with a meaning, what is added to texts, and chat templates.

use std::collections::HashMap;

use serde_json::Value;

use super::{Files, MAX_FILE, Notes, Object, json};
use crate::Result;
use crate::gguf::model_error;

/// Kinds of tokens as the files call them, and the keys of GGUF.
const KINDS: [(&str, &str); 7] = [
    ("bos", "bos_token_id"),
    ("eos", "eos_token_id"),
    ("unk", "unknown_token_id"),
    ("sep", "seperator_token_id"),
    ("pad", "padding_token_id"),
    ("cls", "cls_token_id"),
    ("mask", "mask_token_id"),
];

/// Largest template.
const MAX_TEMPLATE: usize = 1 << 20;

/// What a file says about tokens with a meaning.
#[derive(Default)]
pub(super) struct Special {
    ids: Vec<(&'static str, u32)>,
    flags: Vec<(&'static str, bool)>,
}

impl Special {
    /// The keys that name tokens.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.ids.iter().copied()
    }

    /// The keys that say what is added.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.flags.iter().copied()
    }

    fn id(&self, key: &str) -> Option<u32> {
        self.ids.iter().find(|(name, _)| *name == key).map(|(_, id)| *id)
    }

    fn set(&mut self, key: &'static str, id: u32) {
        match self.ids.iter_mut().find(|(name, _)| *name == key) {
            Some(entry) => entry.1 = id,
            None => self.ids.push((key, id)),
        }
    }

    /// Leaves out what has no row in the embedding.
    pub(super) fn within(&mut self, rows: u32, notes: &mut Notes) {
        self.ids.retain(|(key, id)| {
            if *id >= rows {
                notes.add("tokenizer", format!("{key} {id} has no row in the embedding and is left out"));
            }
            *id < rows
        });
    }

    /// Puts together what all files say; `tokens` are ids by piece.
    pub(super) fn find(files: &Files<'_>, tokens: &HashMap<String, u32>) -> Result<Special> {
        let mut special = Special::default();
        let unk = files.tokenizer.as_ref().map(|file| file.object("model")).transpose()?.flatten();
        for (kind, key) in KINDS {
            let named = match (piece(&files.config, kind)?, piece(&files.map, kind)?, &unk) {
                (Some(piece), ..) | (None, Some(piece), _) => Some(piece),
                (None, None, Some(model)) if kind == "unk" => model.str("unk_token")?.map(str::to_owned),
                _ => None,
            };
            let by_piece = named.and_then(|piece| tokens.get(&piece).copied());
            let by_number = || -> Result<Option<u32>> {
                let name = format!("{kind}_token_id");
                match first_number(&files.generation, &name)? {
                    Some(id) => Ok(Some(id)),
                    None => first_number(files.model, &name),
                }
            };
            if let Some(id) = by_piece.map_or_else(by_number, |id| Ok(Some(id)))? {
                special.set(key, id);
            }
        }
        let (first, last) = template(files, tokens)?;
        if let Some(Some(first)) = first {
            special.set("bos_token_id", first);
        }
        if let Some(Some(last)) = last {
            // What ended an answer until now still does.
            if let Some(eos) = special.id("eos_token_id").filter(|eos| *eos != last) {
                special.set("eot_token_id", eos);
            }
            special.set("eos_token_id", last);
        }
        for (own, other) in [("bos_token_id", "cls_token_id"), ("eos_token_id", "seperator_token_id")] {
            if let (None, Some(id)) = (special.id(own), special.id(other)) {
                special.set(own, id);
            }
        }
        special.more_ends(files)?;
        for (name, key, of_template) in
            [("add_bos_token", "add_bos_token", first), ("add_eos_token", "add_eos_token", last)]
        {
            let flag = files.config.bool(name)?.or(of_template.map(|token| token.is_some()));
            if let Some(flag) = flag {
                special.flags.push((key, flag));
            }
        }
        Ok(special)
    }

    /// Further tokens that end an answer, as `generation_config.json` lists them.
    fn more_ends(&mut self, files: &Files<'_>) -> Result<()> {
        if !files.generation.get("eos_token_id").is_some_and(Value::is_array) {
            return Ok(());
        }
        let ends = files.generation.counts("eos_token_id")?.unwrap_or_default();
        for key in ["eot_token_id", "eom_token_id"] {
            let known: Vec<u32> = ["eos_token_id", "eot_token_id"].iter().filter_map(|key| self.id(key)).collect();
            if self.id(key).is_none()
                && let Some(end) = ends.iter().find(|end| !known.contains(end))
            {
                self.set(key, *end);
            }
        }
        Ok(())
    }
}

/// The piece of a kind of token: a string, or an object with the string inside.
fn piece(file: &Object, kind: &str) -> Result<Option<String>> {
    let key = format!("{kind}_token");
    match file.get(&key) {
        Some(Value::Object(token)) => Ok(token.get("content").and_then(Value::as_str).map(str::to_owned)),
        Some(Value::Bool(_)) => Ok(None),
        _ => Ok(file.str(&key)?.map(str::to_owned)),
    }
}

/// A number, or the first of several.
fn first_number(file: &Object, key: &str) -> Result<Option<u32>> {
    match file.get(key) {
        Some(Value::Array(_)) => Ok(file.counts(key)?.and_then(|ids| ids.first().copied())),
        // -1 stands for none.
        Some(Value::Number(number)) if number.as_i64() == Some(-1) => Ok(None),
        _ => file.u32(key),
    }
}

/// The token in front of a text and the one behind it; `None` inside where the file puts none, outside where it does not say.
type Ends = (Option<Option<u32>>, Option<Option<u32>>);

/// What `tokenizer.json` puts around a text.
fn template(files: &Files<'_>, tokens: &HashMap<String, u32>) -> Result<Ends> {
    let Some(file) = &files.tokenizer else { return Ok((None, None)) };
    let Some(processor) = file.object("post_processor")? else { return Ok((Some(None), Some(None))) };
    let all: Vec<Value> = match processor.array("processors")? {
        Some(all) => all.clone(),
        None => vec![Value::Object(processor.map.clone())],
    };
    let mut ends: Ends = (Some(None), Some(None));
    for processor in &all {
        let token = |name: &str| processor.get(name)?.get(0)?.as_str().and_then(|piece| tokens.get(piece).copied());
        match processor.get("type").and_then(Value::as_str) {
            Some("BertProcessing" | "RobertaProcessing") => ends = (Some(token("cls")), Some(token("sep"))),
            Some("TemplateProcessing") => {
                let Some(single) = processor.get("single").and_then(Value::as_array) else { continue };
                let id = |item: Option<&Value>| {
                    let piece = item?.get("SpecialToken")?.get("id")?.as_str()?;
                    tokens.get(piece).copied()
                };
                ends = (Some(id(single.first())), Some(id(single.last())));
            }
            _ => {}
        }
    }
    Ok(ends)
}

/// The chat templates by name, `default` among them.
pub(super) fn templates(files: &Files<'_>) -> Result<Vec<(String, String)>> {
    let path = files.directory.join("chat_template.jinja");
    if let Some(bytes) = json::read(&path, MAX_TEMPLATE as u64)? {
        let text = String::from_utf8(bytes).map_err(|error| model_error(&path, format!("expected UTF-8: {error}")))?;
        return Ok(vec![("default".into(), text)]);
    }
    let own = Object::open(&files.directory.join("chat_template.json"), MAX_FILE)?;
    for file in [Some(&files.config), own.as_ref()].into_iter().flatten() {
        let key = "chat_template";
        let found = match file.get(key) {
            None => continue,
            Some(Value::Array(items)) => {
                let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
                items.iter().filter_map(|item| Some((text(item, "name")?, text(item, "template")?))).collect()
            }
            Some(_) => vec![("default".to_owned(), file.str(key)?.unwrap_or_default().to_owned())],
        };
        if let Some((name, text)) = found.iter().find(|(_, text)| text.len() > MAX_TEMPLATE) {
            let found = text.len();
            let what = format_args!("must have at most {MAX_TEMPLATE} bytes, found {found} in {name:?}");
            return Err(file.wrong(key, what));
        }
        return Ok(found);
    }
    Ok(Vec::new())
}
