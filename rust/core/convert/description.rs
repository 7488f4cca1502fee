//! What a file says about the model as a whole, `general.*`: the name and what it is made of, the size, the licence.

use std::path::Path;

use super::json;
use crate::Result;
use crate::gguf::Value;

/// Largest model card that is looked at.
const MAX_CARD: u64 = 4 << 20;

/// The keys `general.*` but those of types.
pub(super) fn keys(
    directory: &Path,
    architecture: &str,
    name: Option<&str>,
    parameters: u64,
    experts: Option<(u64, u64)>,
) -> Result<Vec<(&'static str, Value)>> {
    let folder = directory.canonicalize().unwrap_or_else(|_| directory.into());
    let name = name.map_or_else(|| folder_name(&folder), str::to_owned);
    let name = name.as_str();
    let mut keys: Vec<(&'static str, Value)> = vec![
        ("general.architecture", architecture.into()),
        ("general.type", "model".into()),
        ("general.name", name.into()),
    ];
    if let Some((basename, finetune)) = parts(name) {
        keys.push(("general.basename", basename.as_str().into()));
        if !finetune.is_empty() {
            keys.push(("general.finetune", finetune.as_str().into()));
        }
    }
    keys.push(("general.size_label", size_label(parameters, experts).as_str().into()));
    if let Some(license) = card(directory, "license")? {
        keys.push(("general.license", license.as_str().into()));
    }
    Ok(keys)
}

/// The name of a folder; of a snapshot in the cache of the Hugging Face hub (`models--OWNER--NAME/snapshots/COMMIT`), that of the model.
fn folder_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or("model").to_owned();
    let own = name(folder);
    if own.len() == 40
        && own.bytes().all(|byte| byte.is_ascii_hexdigit())
        && let Some(cached) = folder.ancestors().nth(2).map(name)
        && let Some(published) = cached.strip_prefix("models--")
    {
        return published.rsplit("--").next().unwrap_or(published).to_owned();
    }
    own
}

/// What stands before the size in a name, and what stands behind it.
fn parts(name: &str) -> Option<(String, String)> {
    let words: Vec<&str> = name.split(['-', '_', ' ']).collect();
    let is_size = |word: &&str| {
        let digits = word.strip_suffix(['K', 'M', 'B', 'T', 'k', 'm', 'b', 't']).unwrap_or("");
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|c| c.is_ascii_digit() || c == b'.' || c == b'x')
    };
    let at = words.iter().position(is_size).filter(|at| *at > 0)?;
    Some((words[..at].join("-"), words[at + 1..].join("-")))
}

/// A number of weights in two digits, `"135M"`, `"1.2B"`.
fn rounded(weights: u64) -> String {
    let (scale, unit) = match weights {
        1_000_000_000_000.. => (1e12, "T"),
        1_000_000_000.. => (1e9, "B"),
        1_000_000.. => (1e6, "M"),
        _ => (1e3, "K"),
    };
    let value = weights as f64 / scale;
    if value >= 9.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// The size as names have it; of a mixture, the number of experts and the size of a model with one of them.
fn size_label(parameters: u64, experts: Option<(u64, u64)>) -> String {
    match experts {
        Some((count, weights)) if count > 0 => {
            format!("{count}x{}", rounded(parameters.saturating_sub(weights) + weights / count))
        }
        _ => rounded(parameters),
    }
}

/// A value of the front matter of the model card.
fn card(directory: &Path, key: &str) -> Result<Option<String>> {
    let Ok(Some(bytes)) = json::read(&directory.join("README.md"), MAX_CARD) else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Ok(None);
    }
    let value = lines.take_while(|line| line.trim_end() != "---").find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?.trim().trim_matches(['"', '\'']);
        (!value.is_empty() && value.len() <= 100).then(|| value.to_owned())
    });
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(parts("SmolLM2-135M-Instruct"), Some(("SmolLM2".into(), "Instruct".into())));
        assert_eq!(parts("Qwen3-0.6B"), Some(("Qwen3".into(), String::new())));
        assert_eq!(parts("Mixtral-8x7B-v0.1"), Some(("Mixtral".into(), "v0.1".into())));
        assert_eq!((parts("phi-2"), parts("7B")), (None, None));
        let sizes = [134_515_008, 1_235_814_400, 22_713_216, 9_960_000, 70_000].map(rounded);
        assert_eq!(sizes, ["135M", "1.2B", "23M", "10M", "70K"]);
        assert_eq!(size_label(46_700_000_000, Some((8, 45_100_000_000))), "8x7.2B");
    }

    #[test]
    fn folders_in_the_cache_have_the_name_of_the_model() {
        assert_eq!(folder_name("/x/Qwen3-0.6B".as_ref()), "Qwen3-0.6B");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(folder_name(format!("/c/models--Qwen--Qwen3-0.6B/snapshots/{commit}").as_ref()), "Qwen3-0.6B");
        assert_eq!(folder_name(format!("/c/{commit}").as_ref()), commit);
    }

    #[test]
    fn the_licence_is_in_the_front_matter() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), "---\ntags:\n- x\nlicense: apache-2.0\n---\nlicense: no\n")
            .unwrap();
        assert_eq!(card(folder.path(), "license").unwrap().as_deref(), Some("apache-2.0"));
        assert_eq!(card(folder.path(), "language").unwrap(), None);
    }
}
