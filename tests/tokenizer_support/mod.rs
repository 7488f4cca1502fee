//! Small GGUF files made in memory, and where the outside data is.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

use fastq_core::gguf::{Bytes, Gguf};
use fastq_core::tokenizer::Tokenizer;
use fastq_core::{Error, Result};

/// Metadata in the order it was set; no tensors.
#[derive(Clone, Default)]
pub(crate) struct File(Vec<(String, Vec<u8>)>);

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn array(ty: u32, count: usize, items: Vec<u8>) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &ty.to_le_bytes(), &(count as u64).to_le_bytes(), &items].concat()
}

impl File {
    fn set(mut self, key: &str, value: Vec<u8>) -> File {
        let key = if key.contains('.') { key.to_owned() } else { format!("tokenizer.ggml.{key}") };
        match self.0.iter_mut().find(|pair| pair.0 == key) {
            Some(pair) => pair.1 = value,
            None => self.0.push((key, value)),
        }
        self
    }

    pub(crate) fn without(mut self, key: &str) -> File {
        self.0.retain(|pair| pair.0 != format!("tokenizer.ggml.{key}"));
        self
    }

    pub(crate) fn string(self, key: &str, value: &[u8]) -> File {
        self.set(key, [8u32.to_le_bytes().to_vec(), string(value)].concat())
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> File {
        self.set(key, [4u32.to_le_bytes(), value.to_le_bytes()].concat())
    }

    pub(crate) fn i32(self, key: &str, value: i32) -> File {
        self.set(key, [5u32.to_le_bytes(), value.to_le_bytes()].concat())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> File {
        self.set(key, [7u32.to_le_bytes().to_vec(), vec![u8::from(value)]].concat())
    }

    pub(crate) fn strings<S: AsRef<[u8]>>(self, key: &str, items: &[S]) -> File {
        self.set(key, array(8, items.len(), items.iter().flat_map(|item| string(item.as_ref())).collect()))
    }

    pub(crate) fn f32s(self, key: &str, items: &[f32]) -> File {
        self.set(key, array(6, items.len(), items.iter().flat_map(|item| item.to_le_bytes()).collect()))
    }

    pub(crate) fn i32s(self, key: &str, items: &[i32]) -> File {
        self.set(key, array(5, items.len(), items.iter().flat_map(|item| item.to_le_bytes()).collect()))
    }

    pub(crate) fn u8s(self, key: &str, items: &[u8]) -> File {
        self.set(key, array(0, items.len(), items.to_vec()))
    }

    pub(crate) fn u32s(self, key: &str, items: &[u32]) -> File {
        self.set(key, array(4, items.len(), items.iter().flat_map(|item| item.to_le_bytes()).collect()))
    }

    pub(crate) fn gguf(&self) -> Gguf {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((self.0.len() as u64).to_le_bytes());
        for (key, value) in &self.0 {
            bytes.extend(string(key.as_bytes()));
            bytes.extend(value);
        }
        Gguf::parse(Path::new("test.gguf"), Bytes::from(bytes)).unwrap()
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_gguf(&self.gguf())
    }

    /// The message of the error that opening gives.
    pub(crate) fn error(&self) -> String {
        match self.tokenizer() {
            Ok(_) => panic!("accepted"),
            Err(error @ (Error::ModelFile { .. } | Error::UnsupportedModel(_))) => error.to_string(),
            Err(error) => panic!("unexpected kind: {error:?}"),
        }
    }
}

/// Every byte once as GPT-2 writes it, what 53 merges make of them, a control and a user-defined token.
pub(crate) const MERGES: &str = "h e|l l|he ll|hell o|Ġ w|o r|Ġw or|l d|Ġwor ld|' s|' S|1 2|12 3|3 4|34 5|123 4|Ġ Ġ|ĠĠ Ġ|Ċ Ċ|Ġ Ċ|ĊĊ Ġ|č Ċ|\
    . .|.. .|. Ċ|/ Ċ|= >|a B|B C|aB C|C s|Ã ©|Ã© A|ã Ģ|ãĢ Ģ|ä ¸|ä¸ Ń|Ġ 1|Ġ a|Ġa B|! !|!! Ċ|Ġ !|( y|x (|) .|Ì ģ|e Ìģ|Ġ '|a b|! a|d !|Ð Ł";

pub(crate) fn bpe_tokens() -> Vec<String> {
    let mut next = 255;
    let mut character = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => byte as char,
        _ => {
            next += 1;
            char::from_u32(next).unwrap()
        }
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| character(byte).to_string()).collect();
    tokens.extend(MERGES.split('|').map(|merge| merge.replace(' ', "")));
    tokens.extend(["<|end|>".to_owned(), "<tool>".to_owned()]);
    tokens
}

pub(crate) fn bpe(pre: &str) -> File {
    let tokens = bpe_tokens();
    let mut types = vec![1; tokens.len() - 2];
    types.extend([3, 4]);
    File::default()
        .string("model", b"gpt2")
        .string("pre", pre.as_bytes())
        .strings("tokens", &tokens)
        .i32s("token_type", &types)
        .strings("merges", &MERGES.split('|').collect::<Vec<_>>())
        .u32("bos_token_id", 309)
        .u32("eos_token_id", 309)
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "▁", "a", "b", "c", "d", "e", "h", "l", "o", "r", "w", "ab", "bc", "abc", "ll", "he", "hell", "hello", "▁w", "or", "▁wor", "ld",
    "▁world", "▁a", "▁▁", "▁h", "▁hello", "é", "  ", "<tool>",
];

/// `<unk> <s> </s>`, 256 byte tokens, 28 pieces with falling scores (but `ab` and `bc` score the same), two user-defined tokens.
pub(crate) fn spm() -> File {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(PIECES.iter().map(|piece| piece.to_string()));
    let mut types = vec![2, 3, 3];
    types.resize(259, 6);
    types.resize(287, 1);
    types.resize(289, 4);
    let mut scores = vec![0.0; 259];
    scores.extend((0..30).map(|index| -(index as f32)));
    scores[271] = scores[270];
    File::default()
        .string("model", b"llama")
        .strings("tokens", &tokens)
        .i32s("token_type", &types)
        .f32s("scores", &scores)
}

/// A folder outside the repository: from the variable, or beside the repository.
fn outside(variable: &str, beside: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(beside),
    };
    folder.is_dir().then_some(folder)
}

/// The vocabularies that llama.cpp has beside its source, with texts and their tokens.
#[allow(clippy::print_stderr, reason = "a skipped test must be loud")]
pub(crate) fn vocabularies_of_llama_cpp() -> Vec<PathBuf> {
    let Some(folder) = outside("FASTQ_LLAMA_CPP", "llama.cpp").map(|folder| folder.join("models")) else {
        eprintln!("SKIPPED: FASTQ_LLAMA_CPP must name the source of llama.cpp");
        return Vec::new();
    };
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect()
}

#[allow(clippy::print_stderr, reason = "a skipped test must be loud")]
/// The shared material, and `model` among the real models; says so when they are not there.
pub(crate) fn shared_and_model(model: &str) -> Option<(PathBuf, PathBuf)> {
    let shared = outside("FASTQ_SHARED", "shared");
    let file = outside("FASTQ_MODELS", "models")
        .map(|folder| folder.join(format!("{model}.gguf")))
        .filter(|file| file.is_file());
    if shared.is_none() || file.is_none() {
        eprintln!("SKIPPED: FASTQ_SHARED and FASTQ_MODELS must name folders with reference/ and {model}.gguf");
    }
    Some((shared?, file?))
}

/// `[PAD] [UNK] [CLS] [SEP] [MASK]` and some pieces of WordPiece.
pub(crate) fn wordpiece() -> File {
    #[rustfmt::skip]
    let tokens = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁hello", "▁hell", "o", "▁wor", "ld", "▁,", "▁!", "▁中", "▁e", "▁a", "a", "▁E",
    ];
    let mut types = [1; 17];
    types[..5].copy_from_slice(&[3, 2, 3, 3, 3]);
    File::default()
        .string("model", b"bert")
        .strings("tokens", &tokens)
        .i32s("token_type", &types)
        .u32("bos_token_id", 2)
        .u32("unknown_token_id", 1)
        .u32("seperator_token_id", 3)
        .u32("mask_token_id", 4)
}

/// `<pad> </s> <unk>` and some pieces of the unigram model; the last is user-defined.
pub(crate) fn unigram() -> File {
    let tokens = ["<pad>", "</s>", "<unk>", "▁", "▁a", "a", "ab", "b", "abc", "c", "bc", "▁ab", "é", "<tool>"];
    let mut types = [1; 14];
    types[..3].copy_from_slice(&[3, 3, 2]);
    types[13] = 4;
    let scores = [0.0, 0.0, 0.0, -3.0, -2.0, -2.5, -4.0, -2.5, -9.0, -2.5, -3.0, -6.0, -4.0, 0.0];
    File::default().string("model", b"t5").strings("tokens", &tokens).i32s("token_type", &types).f32s("scores", &scores)
}
