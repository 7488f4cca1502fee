//! Tells what a file is that is not GGUF: most wrong files are wrong in one of a few ways.

use std::path::Path;

use crate::{Error, Result};

/// Magic number of GGUF files.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// An error that names the kind of file unless it begins with the magic number.
pub(super) fn check(path: &Path, file: &[u8]) -> Result<()> {
    if file.starts_with(MAGIC) {
        return Ok(());
    }
    let what = format!("expected a GGUF file, found {}", kind(file));
    Err(Error::ModelFile { path: path.into(), offset: Some(0), what })
}

fn kind(file: &[u8]) -> String {
    // Old ggml files have their magic as a number, so that it reads backwards in little-endian files.
    const OLD: &[(&[u8; 4], &str)] = &[(b"ggml", "GGML"), (b"ggmf", "GGMF"), (b"ggjt", "GGJT"), (b"ggla", "GGLA")];
    let backwards: Vec<u8> = file.iter().take(4).rev().copied().collect();
    for (magic, name) in OLD {
        if file.starts_with(*magic) || backwards == **magic {
            return format!("a {name} file, the format before GGUF; convert the model again");
        }
    }
    if backwards == MAGIC {
        return "a byte-swapped GGUF file; convert it with gguf-convert-endian".into();
    }
    if file.is_empty() {
        return "an empty file; download it again".into();
    }
    if file.starts_with(b"version https://git-lfs") {
        return "a Git LFS pointer; run `git lfs pull` to fetch the file itself".into();
    }
    if file.len() < 4 && MAGIC.starts_with(file) {
        return format!("only its first {} bytes; download it again", file.len());
    }
    const STARTS: &[(&[u8], &str)] = &[
        (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)"),
        (b"\x1f\x8b", "a gzip file; unpack it"),
        (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it"),
        (b"\xfd7zXZ\x00", "an xz file; unpack it"),
        (b"\x80\x02", "a Python pickle"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x7fELF", "a program"),
    ];
    if let Some((_, name)) = STARTS.iter().find(|(start, _)| file.starts_with(start)) {
        return (*name).into();
    }
    if let Some((length, rest)) = file.split_first_chunk::<8>()
        && u64::from_le_bytes(*length) <= rest.len() as u64
        && rest.starts_with(b"{")
    {
        return "a safetensors file; convert it to GGUF first".into();
    }
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii_start();
    match text.first() {
        Some(b'<') => return "a web page or XML; the download went wrong (log-in needed?)".into(),
        Some(b'{' | b'[') => return "a JSON file".into(),
        _ => {}
    }
    let first = &file[..file.len().min(4)];
    if file.iter().take(4096).all(|byte| *byte == 0) {
        return "zeros; the download is not complete".into();
    }
    format!("the bytes \"{}\" at its beginning", first.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_usual_wrong_files() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b"GGU", "only its first 3 bytes"),
            (b"tjgg\x03\0\0\0", "GGJT"),
            (b"ggjt\x03\0\0\0", "GGJT"),
            (b"algg\x01\0\0\0", "GGLA"),
            (b"lmgg", "GGML"),
            (b"fmgg", "GGMF"),
            (b"FUGG\0\0\0\x03", "byte-swapped"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"PK\x03\x04....", "zip"),
            (b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
            (b"\xef\xbb\xbf\n <!DOCTYPE html>", "web page"),
            (b"{\"a\":1}", "JSON"),
            (&[0; 5000], "zeros"),
            (b"gguf\x03\0\0\0", "\"gguf\""),
            (b"\xff\"\n", "\\xff"),
        ];
        for (file, part) in cases {
            let message = check(Path::new("m.gguf"), file).expect_err("not GGUF").to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        }
        assert!(check(Path::new("m.gguf"), b"GGUF").is_ok());
    }
}
