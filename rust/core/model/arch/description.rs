//! Architectures that a user describes: a known one, and how the new one differs.
//!
//! ```toml
//! base = "llama"
//! head_norms = "each"
//! window = { all_but_every = 4 }
//! rope_style = "halves"
//! ```

use std::path::Path;

use serde_json::{Map, Value};

use super::{Architecture, Recurrence, RopeLayers, WindowPattern};
use crate::gguf::io_error;
use crate::{Error, Result};

/// The most bytes of a description.
const MAX_BYTES: u64 = 1 << 16;
/// The key that names the architecture to start from.
const BASE: &str = "base";

/// The architecture that `text` describes: the name of a known one, a TOML file (`*.toml`), or a JSON object. The keys of the last
/// two are `base` and the fields of [`Architecture`].
///
/// # Errors
/// [`Error::Argument`] for a name or key that is not known, or a value of the wrong kind; [`Error::NotFound`] and [`Error::Io`] for
/// a file that cannot be read.
pub fn described(text: &str) -> Result<Architecture> {
    if text.trim_start().starts_with('{') {
        let object = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        return from_object(&object);
    }
    let path = Path::new(text);
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        let object = toml::from_str(&read(path)?).map_err(|error| wrong(&format!("{text}: {error}")))?;
        return from_object(&object);
    }
    named(text)
}

fn wrong(what: &str) -> Error {
    Error::Argument(format!("architecture: {what}"))
}

fn named(name: &str) -> Result<Architecture> {
    let known = || wrong(&format!("must be one of {}, found {name:?}", Architecture::names().join(", ")));
    Architecture::find(name).copied().ok_or_else(known)
}

fn read(path: &Path) -> Result<String> {
    let io = |error| io_error(path, error);
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > MAX_BYTES {
        return Err(wrong(&format!(
            "{} has {bytes} bytes, more than the {MAX_BYTES} of a description",
            path.display()
        )));
    }
    std::fs::read_to_string(path).map_err(io)
}

/// The base with the fields of `object` in place of its own.
fn from_object(object: &Map<String, Value>) -> Result<Architecture> {
    let base = match object.get(BASE) {
        Some(Value::String(name)) => named(name)?,
        Some(other) => return Err(wrong(&format!("{BASE} must be the name of an architecture, found {other}"))),
        None => return Err(wrong(&format!("{BASE} is missing: expected the name of the architecture to start from"))),
    };
    let Ok(Value::Object(mut fields)) = serde_json::to_value(base) else {
        return Err(Error::Internal("an architecture has no fields".into()));
    };
    for (key, value) in object.iter().filter(|(key, _)| *key != BASE) {
        if !fields.contains_key(key) {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            return Err(wrong(&format!("{key:?} is not known; the keys are {BASE}, {}", known.join(", "))));
        }
        fields.insert(key.clone(), value.clone());
        // One by one, so that an error can name the key.
        let attempt = serde_json::from_value::<Architecture>(Value::Object(fields.clone()));
        attempt.map_err(|error| wrong(&format!("{key}: {error}")))?;
    }
    let described = serde_json::from_value(Value::Object(fields)).map_err(|error| wrong(&error.to_string()))?;
    check(&described)?;
    Ok(described)
}

/// Numbers that the forward pass relies on.
fn check(described: &Architecture) -> Result<()> {
    let positive = |name: &str, value: Option<f32>| match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(wrong(&format!("{name} must be a finite number above 0, found {value}")))
        }
        _ => Ok(()),
    };
    positive("rope_base", Some(described.rope_base))?;
    positive("window_rope_base", described.window_rope_base)?;
    positive("score_cap", described.score_cap)?;
    positive("logit_cap", described.logit_cap)?;
    for (name, every) in [
        ("rope_layers", matches!(described.rope_layers, RopeLayers::AllButEvery(0))),
        ("recurrence", matches!(described.recurrence, Recurrence::DeltaNetAllButEvery(0))),
        ("window", matches!(described.window, WindowPattern::AllButEvery(0))),
    ] {
        if every {
            return Err(wrong(&format!("{name}: every so many layers must be at least 1, found 0")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::arch::{Gate, HeadNorms};

    #[test]
    fn a_description_changes_what_it_names() {
        let llama = named("llama").expect("it is known");
        assert_eq!(described("llama").expect("a name"), llama);
        assert_eq!(described(r#"{"base": "llama"}"#).expect("no change"), llama);
        let json = r#"{"base": "llama", "head_norms": "each", "window": {"all_but_every": 4}, "gate": "none"}"#;
        let expected = Architecture {
            head_norms: HeadNorms::Each,
            window: WindowPattern::AllButEvery(4),
            gate: Gate::None,
            ..llama
        };
        assert_eq!(described(json).expect("four keys"), expected);

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("variant.toml");
        let toml = "base = \"llama\"\nhead_norms = \"each\"\nwindow = { all_but_every = 4 }\ngate = \"none\"\n";
        std::fs::write(&file, toml).expect("written");
        assert_eq!(described(file.to_str().expect("a name")).expect("the same"), expected);
        std::fs::write(&file, " ".repeat(70_000)).expect("written");
        assert!(described(file.to_str().expect("a name")).is_err_and(|error| error.to_string().contains("65536")));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("lama", "must be one of llama, "),
            ("{", "EOF"),
            ("{}", "base is missing"),
            (r#"{"base": 1}"#, "base must be the name of an architecture, found 1"),
            (r#"{"base": "lama"}"#, "must be one of llama, "),
            (r#"{"base": "llama", "heads": 3}"#, "\"heads\" is not known; the keys are base, "),
            (r#"{"base": "llama", "head_norms": "some"}"#, "head_norms: unknown variant `some`"),
            (r#"{"base": "llama", "rope_base": -1}"#, "rope_base must be a finite number above 0, found -1"),
            (
                r#"{"base": "llama", "rope_layers": {"all_but_every": 0}}"#,
                "rope_layers: every so many layers must be at least 1",
            ),
            (r#"{"base": "llama", "window": {"all_but_every": -2}}"#, "window: "),
        ] {
            let error = described(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(matches!(described("/nowhere/variant.toml"), Err(Error::NotFound(_))));
    }
}
