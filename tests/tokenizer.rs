//! Tokenizers: equality with llama.cpp, hostile vocabularies, worst-case texts, and the way back to text.

mod tokenizer_support;

use std::time::{Duration, Instant};

use fastq_core::gguf::{Gguf, OpenOptions};
use fastq_core::tokenizer::Tokenizer;
use fastq_core::{Error, Never};
use proptest::prelude::*;
use tokenizer_support::{File, bpe, bpe_tokens, shared_and_model, spm, unigram, vocabularies_of_llama_cpp, wordpiece};
use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;

const NASTY: &str =
    "hello world's 12345 aBC'S  x(y).\n\n  hello!!\n /\n=>... \u{3000}éA中 e\u{301} 'sab\r\n 34!a ПП world!\t \n   ";

/// Tokens of [`NASTY`] as llama.cpp gives them for the same file.
#[rustfmt::skip]
const GOLDEN: &[(&[&str], &[u32])] = &[
    (&["default"], &[259, 264, 39, 115, 32, 268, 52, 53, 32, 285, 39, 83, 32, 32, 120, 40, 121, 301, 276, 32, 259, 296, 10, 32, 47, 10, 282, 279, 32, 290, 288, 292, 32, 101, 302, 32, 39, 115, 305, 277, 32, 269, 33, 97, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["gpt-2", "olmo", "phi-2"], &[259, 264, 265, 32, 271, 53, 32, 285, 39, 83, 32, 32, 120, 40, 121, 301, 276, 32, 259, 296, 10, 32, 47, 10, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 269, 33, 97, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["llama-bpe"], &[259, 264, 265, 32, 268, 52, 53, 32, 285, 266, 32, 32, 120, 299, 301, 274, 32, 32, 259, 297, 32, 281, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 269, 306, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["smollm", "starcoder", "refact"], &[259, 264, 265, 32, 49, 50, 51, 52, 53, 32, 285, 39, 83, 32, 32, 120, 40, 121, 301, 276, 32, 259, 296, 10, 32, 47, 10, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 51, 52, 33, 97, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["qwen2", "deepseek-r1-qwen", "stablelm2"], &[259, 264, 265, 32, 49, 50, 51, 52, 53, 32, 285, 266, 32, 32, 120, 299, 301, 274, 32, 32, 259, 297, 32, 281, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 51, 52, 306, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["tekken"], &[259, 264, 265, 32, 49, 50, 51, 52, 53, 294, 284, 266, 32, 32, 120, 299, 301, 274, 32, 32, 259, 297, 32, 281, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 51, 52, 306, 32, 308, 308, 264, 33, 9, 275, 273]),
    (&["gpt-4o"], &[259, 264, 265, 32, 268, 52, 53, 294, 284, 266, 32, 32, 120, 299, 301, 274, 32, 32, 259, 297, 32, 281, 282, 279, 32, 290, 288, 292, 32, 101, 302, 304, 115, 305, 277, 32, 269, 306, 32, 308, 308, 264, 33, 9, 275, 273]),
];

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false, true, &Never).unwrap()
}

#[test]
fn every_pre_tokenizer_equals_llama_cpp() {
    for (names, ids) in GOLDEN {
        for name in *names {
            let tokenizer = bpe(name).tokenizer().unwrap();
            assert_eq!(encode(&tokenizer, NASTY), *ids, "{name}");
            assert_eq!(tokenizer.decode(ids, false).unwrap(), NASTY, "{name}");
            assert_eq!(tokenizer.kind(), format!("gpt2/{name}"));
            assert_eq!(tokenizer.add_bos(), matches!(*name, "llama-bpe" | "tekken"), "{name}");
        }
    }
}

#[test]
fn sentencepiece_equals_llama_cpp() {
    /// Text; with the space prefix, BOS and special tokens; without special tokens; with special tokens but no prefix.
    type Case = (&'static str, &'static [u32], &'static [u32], &'static [u32]);
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("hello world", &[1, 285, 281], &[285, 281], &[276, 281]),
        ("abcabbc aa", &[1, 259, 272, 270, 271, 282, 260], &[259, 272, 270, 271, 282, 260], &[272, 270, 271, 282, 260]),
        ("é\u{301} \n<tool>hello</s>abc   x", &[1, 259, 286, 207, 132, 259, 13, 288, 285, 2, 259, 272, 287, 283, 123],
            &[259, 286, 207, 132, 259, 13, 288, 285, 63, 50, 118, 65, 272, 287, 283, 123],
            &[286, 207, 132, 259, 13, 288, 276, 2, 272, 287, 259, 123]),
        ("", &[1], &[], &[]),
    ];
    let (prefixed, plain) = (spm().tokenizer().unwrap(), spm().bool("add_space_prefix", false).tokenizer().unwrap());
    for (text, special, text_only, no_prefix) in cases {
        assert_eq!(prefixed.encode(text, true, true, &Never).unwrap(), *special, "{text:?}");
        assert_eq!(prefixed.encode(text, false, false, &Never).unwrap(), *text_only, "{text:?}");
        assert_eq!(plain.encode(text, false, true, &Never).unwrap(), *no_prefix, "{text:?}");
        // As in llama.cpp, the prefix is also put behind special tokens, which decoding cannot know.
        if !text.contains("<tool>") {
            assert_eq!(prefixed.decode(text_only, false).unwrap(), *text);
        }
        assert_eq!(plain.decode(&plain.encode(text, true, false, &Never).unwrap(), false).unwrap(), *text);
    }
    assert_eq!((prefixed.bos(), prefixed.eos(), prefixed.unknown()), (Some(1), Some(2), Some(0)));
    assert!(
        prefixed.add_bos()
            && !prefixed.add_eos()
            && prefixed.is_end_of_generation(2)
            && !prefixed.is_end_of_generation(1)
    );
}

#[test]
fn word_piece() {
    let tokenizer = wordpiece().tokenizer().unwrap();
    let plain = |text: &str| tokenizer.encode(text, false, false, &Never).unwrap();
    assert_eq!(plain("Hello,\u{a0}WORLD! 中é"), [5, 10, 8, 9, 11, 12, 13]);
    // The longest piece first; a word that cannot be written is one unknown token, whatever of it could be.
    assert_eq!(plain("helloo hell helld"), [5, 7, 6, 1]);
    assert!(plain(" \t\n\u{301}\u{200b}").is_empty());
    assert_eq!(tokenizer.encode("a", true, false, &Never).unwrap(), [2, 14, 3]);
    assert_eq!(encode(&tokenizer, "a [MASK]aa"), [14, 4, 14, 15]);
    assert_eq!(tokenizer.decode(&[2, 5, 10, 8, 9, 3], false).unwrap(), "hello , world");
    assert_eq!((tokenizer.class(), tokenizer.separator(), tokenizer.mask()), (Some(2), Some(3), Some(4)));
    assert!(tokenizer.add_bos() && tokenizer.add_eos() && tokenizer.kind() == "bert-wordpiece");
    let cased = wordpiece().bool("tokenizer.ggml.normalizer.lowercase", false).tokenizer().unwrap();
    assert_eq!(encode(&cased, "E é"), [16, 1]);
    let stripped = wordpiece()
        .bool("tokenizer.ggml.normalizer.lowercase", false)
        .bool("tokenizer.ggml.normalizer.strip_accents", true);
    assert_eq!(encode(&stripped.tokenizer().unwrap(), "E é É"), [16, 13, 16]);
}

#[test]
fn unigram_takes_the_best_way() {
    let tokenizer = unigram().tokenizer().unwrap();
    let plain = |text: &str| tokenizer.encode(text, false, false, &Never).unwrap();
    // a + bc = -5.5, ab + c = -6.5, abc = -9.
    assert_eq!(plain("abc"), [5, 10]);
    // Several unknown characters are one token, wherever the text was decided between them.
    assert_eq!(plain("a中文b€"), [5, 2, 7, 2]);
    assert_eq!(plain("a<tool>b"), [5, 13, 7]);
    assert!(plain("").is_empty());
    assert_eq!(tokenizer.encode("a", true, false, &Never).unwrap(), [5, 1]);
    assert_eq!(tokenizer.kind(), "t5-unigram");
    let prefixed = unigram().bool("add_space_prefix", true).bool("remove_extra_whitespaces", true);
    let prefixed = prefixed.tokenizer().unwrap();
    assert_eq!(encode(&prefixed, "  a   b  "), [4, 3, 7]);
    assert_eq!(prefixed.decode(&[4, 3, 7], false).unwrap(), "a b");
    assert_eq!(prefixed.decode(&encode(&tokenizer, " a"), false).unwrap(), "a");
}

/// A table of `é` with nothing, and of `e` with what is given.
fn charsmap(unit: impl Fn(usize, u32) -> u32, replacements: &[u8]) -> Vec<u8> {
    let mut units = vec![0_u32; 1024];
    // Children of the root, of `e`, of 0xc3, of 0xc3 0xa9.
    units[0] = 256 << 10;
    units[256 ^ 0x65] = (0x165 ^ 512) << 10 | 1 << 8 | 0x65;
    units[512] = 1 << 31 | 1;
    units[256 ^ 0xc3] = (0x1c3 ^ 768) << 10 | 0xc3;
    units[768 ^ 0xa9] = (0x3a9 ^ 640) << 10 | 1 << 8 | 0xa9;
    units[640] = 1 << 31;
    let units: Vec<u8> =
        units.iter().enumerate().flat_map(|(index, value)| unit(index, *value).to_le_bytes()).collect();
    [&(units.len() as u32).to_le_bytes()[..], &units, replacements].concat()
}

#[test]
fn unigram_normalises() {
    let map = charsmap(|_, unit| unit, b"\0a b\0");
    let tokenizer = unigram().u8s("precompiled_charsmap", &map).tokenizer().unwrap();
    assert_eq!(encode(&tokenizer, "eéc"), [5, 3, 10]);
    // As in llama.cpp, the beginning of a user-defined token keeps what follows from being one string with it.
    assert_eq!(encode(&tokenizer, "<e"), [2, 5, 3, 7]);

    let long = charsmap(|_, unit| unit, &[&b"\0"[..], &[b'a'; 1 << 16], b"\0"].concat());
    let tokenizer = unigram().u8s("precompiled_charsmap", &long).tokenizer().unwrap();
    assert!(matches!(tokenizer.encode("ee", false, false, &Never), Err(Error::Tokenizer(_))));

    // Tables that lie: each is refused when the file is opened, or gives an error or some tokens.
    let refused: [&[u8]; 6] = [&[], &[0; 4], &[9, 0, 0, 0, 0], &[0, 0, 0, 0, 65], &[255; 64], &map[..map.len() - 1]];
    for bytes in refused {
        assert!(unigram().u8s("precompiled_charsmap", bytes).error().contains("tokenizer.ggml.precompiled_charsmap"));
    }
    assert!(unigram().i32s("precompiled_charsmap", &[1, 2]).error().contains("array of bytes"));
    let outside = [
        charsmap(|index, unit| if index == 0 { u32::MAX } else { unit }, b"\0"),
        charsmap(|index, unit| if index == 512 { 1 << 31 | 99 } else { unit }, b"\0a\0"),
        charsmap(|index, unit| if index == 256 ^ 0x65 { 0x7fff_fc00 | 1 << 8 | 0x65 } else { unit }, b"\0"),
    ];
    for bytes in outside {
        let tokenizer = unigram().u8s("precompiled_charsmap", &bytes).tokenizer().unwrap();
        let error = tokenizer.encode("e", false, false, &Never).unwrap_err();
        assert!(matches!(&error, Error::Tokenizer(what) if what.contains("precompiled_charsmap")), "{error}");
    }
}

/// All texts of `../shared/reference`, and the speed of loading.
#[test]
fn real_models_equal_llama_cpp() {
    for model in ["smollm2", "gemma3"] {
        let Some((shared, path)) = shared_and_model(model) else { continue };
        let reference = std::fs::read_to_string(shared.join(format!("reference/{model}.json"))).unwrap();
        let reference: serde_json::Value = serde_json::from_str(&reference).unwrap();
        let file = Gguf::open(&path, &OpenOptions::default()).unwrap();
        let tokenizer = Tokenizer::from_gguf(&file).unwrap();
        let cases = reference["tokenizations"].as_array().unwrap();
        assert!(cases.len() > 50);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(encode(&tokenizer, text), ids, "{model} {text:?}");
        }
        let ends = if model == "smollm2" { &[0, 2, 4][..] } else { &[1, 106, 212] };
        assert_eq!(tokenizer.end_of_generation(), ends, "{model}");
    }
}

/// The vocabularies of real models, and the tokens that llama.cpp tests itself with.
#[test]
fn real_vocabularies_equal_llama_cpp() {
    for path in vocabularies_of_llama_cpp() {
        let read = |end: &str| std::fs::read_to_string(format!("{}{end}", path.display())).ok();
        let (Some(texts), Some(ids)) = (read(".inp"), read(".out")) else { continue };
        let file = Gguf::open(&path, &OpenOptions::default()).unwrap();
        let tokenizer = Tokenizer::from_gguf(&file).unwrap();
        // Every text but the last is followed by a line feed.
        for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(ids.lines()) {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let found = tokenizer.encode(text, false, false, &Never).unwrap();
            assert_eq!(found, ids, "{} {text:?}", path.display());
        }
    }
}

#[test]
fn special_tokens() {
    let tokenizer = bpe("gpt-2").tokenizer().unwrap();
    // User-defined tokens are always found, control tokens only when asked for.
    assert_eq!(tokenizer.encode("a<tool><|end|>", false, true, &Never).unwrap(), [97, 310, 309]);
    let ids = tokenizer.encode("a<tool><|end|>", false, false, &Never).unwrap();
    assert!(ids.contains(&310) && !ids.contains(&309));
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a<tool><|end|>");
    // Control tokens are shown only when asked for.
    assert_eq!(tokenizer.decode(&[97, 310, 309], false).unwrap(), "a<tool>");
    assert_eq!(tokenizer.decode(&[97, 310, 309], true).unwrap(), "a<tool><|end|>");
    assert!(tokenizer.is_end_of_generation(309) && !tokenizer.is_end_of_generation(310));
    assert_eq!(tokenizer.token_id("<tool>"), Some(310));
    assert_eq!(tokenizer.token_text(309).unwrap(), "<|end|>");
    assert_eq!(tokenizer.token_text(311), None);
    assert!(matches!(tokenizer.decode(&[311], true), Err(Error::Argument(_))));

    let flags = bpe("gpt-2").bool("add_bos_token", true).bool("add_eos_token", true).tokenizer().unwrap();
    assert_eq!(flags.encode("a", true, true, &Never).unwrap(), [309, 97, 309]);
    assert_eq!(flags.encode("a", false, true, &Never).unwrap(), [97]);
    // -1 is how some converters write "none".
    let none = bpe("gpt-2").i32("eos_token_id", -1).u32("padding_token_id", u32::MAX).tokenizer().unwrap();
    assert_eq!((none.eos(), none.padding()), (None, None));
    // Phi-3 drops white space after its special tokens.
    let phi = bpe("gpt-2").string("general.name", b"My Phi-3 mini").tokenizer().unwrap();
    assert_eq!(encode(&phi, "<|end|>\n a"), [309, 97]);
}

#[test]
fn longest_special_token_wins() {
    let mut tokens = bpe_tokens();
    tokens.extend(["<tool>s".to_owned(), "<tool>sx".to_owned()]);
    let mut types = vec![1; tokens.len() - 4];
    types.extend([3, 4, 4, 4]);
    let tokenizer = bpe("gpt-2").strings("tokens", &tokens).i32s("token_type", &types).tokenizer().unwrap();
    assert_eq!(encode(&tokenizer, "<tool>sx<tool>s<tool>"), [312, 311, 310]);
}

#[test]
fn hostile_vocabularies_are_refused_with_the_key() {
    let tokens = bpe_tokens();
    let with_token = |token: &[u8]| {
        let mut all: Vec<Vec<u8>> = tokens.iter().map(|token| token.clone().into_bytes()).collect();
        all[308] = token.into();
        all
    };
    let merge = |merge: &str| bpe("gpt-2").strings("merges", &[&[merge], &["h e"][..]].concat());
    let spm_tokens = |token: &str| {
        let gguf = spm().gguf();
        let mut tokens: Vec<Vec<u8>> =
            gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap().iter().map(Into::into).collect();
        tokens[7] = token.into();
        spm().strings("tokens", &tokens)
    };
    let cases: Vec<(File, &str)> = vec![
        (bpe("gpt-2").without("model"), "tokenizer.ggml.model"),
        (bpe("gpt-2").string("model", b"zzz"), "zzz"),
        (bpe("gpt-2").u32("model", 1), "tokenizer.ggml.model"),
        (bpe("zzz"), "tokenizer.ggml.pre"),
        (bpe("gpt-2").without("tokens"), "tokenizer.ggml.tokens"),
        (bpe("gpt-2").strings::<&str>("tokens", &[]), "tokenizer.ggml.tokens"),
        (bpe("gpt-2").u32s("tokens", &[1, 2]), "tokenizer.ggml.tokens"),
        (bpe("gpt-2").string("tokens", b"abc"), "tokenizer.ggml.tokens"),
        (bpe("gpt-2").strings("tokens", &with_token(b"h")), "found \"h\" at 104 and 308"),
        (bpe("gpt-2").i32s("token_type", &[1; 310]), "(311), found 310"),
        (bpe("gpt-2").u8s("token_type", &[1; 311]), "tokenizer.ggml.token_type"),
        (bpe("gpt-2").i32s("token_type", &[99; 311]), "found 99"),
        (bpe("gpt-2").i32s("token_type", &[-1; 311]), "found -1"),
        (bpe("gpt-2").without("merges"), "tokenizer.ggml.merges"),
        (bpe("gpt-2").u32s("merges", &[1]), "tokenizer.ggml.merges"),
        (merge("nospace"), "merge 0"),
        (merge(" "), "merge 0"),
        (merge(""), "merge 0"),
        (merge("a b c"), "merge 0"),
        (merge("zzq qqz"), "merge 0"),
        (merge("hello hello"), "merge 0"),
        (bpe("gpt-2").u32("bos_token_id", 311), "must be below the 311 tokens"),
        (bpe("gpt-2").u32("eos_token_id", 1 << 20), "tokenizer.ggml.eos_token_id"),
        (bpe("gpt-2").i32("eos_token_id", -7), "found -7"),
        (bpe("gpt-2").string("eos_token_id", b"2"), "tokenizer.ggml.eos_token_id"),
        (bpe("gpt-2").u32("eot_token_id", 311), "tokenizer.ggml.eot_token_id"),
        (bpe("gpt-2").bool("add_bos_token", true).without("bos_token_id"), "tokenizer.ggml.bos_token_id"),
        (bpe("gpt-2").u32("add_bos_token", 1), "tokenizer.ggml.add_bos_token"),
        (spm().f32s("scores", &[0.0; 288]), "(289), found 288"),
        (spm().f32s("scores", &[0.0; 290]), "(289), found 290"),
        (spm().u8s("scores", &[0; 289]), "tokenizer.ggml.scores"),
        (spm().f32s("scores", &[f32::NAN; 289]), "NaN"),
        (wordpiece().i32("seperator_token_id", -1), "tokenizer.ggml.seperator_token_id"),
        (wordpiece().without("bos_token_id"), "tokenizer.ggml.bos_token_id"),
        (wordpiece().without("unknown_token_id"), "tokenizer.ggml.unknown_token_id"),
        (wordpiece().u32("tokenizer.ggml.normalizer.lowercase", 1), "tokenizer.ggml.normalizer.lowercase"),
        (
            wordpiece().strings("tokens", &["1", "2", "3", "4", &"a".repeat(257)]).i32s("token_type", &[1; 5]),
            "at most 256 bytes",
        ),
        (unigram().i32("unknown_token_id", -1), "tokenizer.ggml.unknown_token_id"),
        (unigram().u32("remove_extra_whitespaces", 1), "tokenizer.ggml.remove_extra_whitespaces"),
        (bpe("gemma4").without("bos_token_id"), "tokenizer.ggml.bos_token_id"),
        (spm_tokens("<0x-1>"), "<0x-1>"),
        (spm_tokens("<0xZZ>"), "<0xZZ>"),
        (spm_tokens("<0x>"), "<0x>"),
        (spm_tokens("<0x 1>"), "<0x 1>"),
        (spm_tokens("<0x+1>"), "<0x+1>"),
    ];
    for (file, expected) in cases {
        let message = file.error();
        assert!(message.contains(expected), "{message} lacks {expected}");
        assert!(message.contains("test.gguf"), "{message}");
    }
}

#[test]
fn odd_vocabularies_work() {
    // Empty tokens, tokens that are not UTF-8, very long tokens: kept, but no text gives them.
    let mut tokens: Vec<Vec<u8>> = bpe_tokens().into_iter().map(String::into_bytes).collect();
    tokens.extend([vec![], vec![], b"\xff\xfe\x80".into(), vec![b'a'; 1 << 20], b"\xa9".into()]);
    let mut types = vec![1; 309];
    types.extend([3, 4, 1, 1, 1, 1, 4]);
    let tokenizer = bpe("gpt-2").strings("tokens", &tokens).i32s("token_type", &types).tokenizer().unwrap();
    // U+00E9 is c3 a9: the user-defined token a9 must not be found inside.
    assert_eq!(encode(&tokenizer, "é"), [287]);
    assert_eq!(tokenizer.decode(&[313], false).unwrap(), "\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(tokenizer.decode(&[311, 97], false).unwrap(), "a");
    assert_eq!(encode(&tokenizer, &"a".repeat(1 << 20)).len(), 1 << 20);
    // Merges in reverse order and twice, scores all equal or missing, no types: all must end.
    let mut merges: Vec<&str> = tokenizer_support::MERGES.split('|').rev().collect();
    merges.extend_from_within(..);
    assert!(!encode(&bpe("gpt-2").strings("merges", &merges).tokenizer().unwrap(), NASTY).is_empty());
    assert!(!encode(&bpe("gpt-2").without("token_type").tokenizer().unwrap(), NASTY).is_empty());
    assert!(!encode(&spm().f32s("scores", &[0.0; 289]).tokenizer().unwrap(), NASTY).is_empty());
    assert!(!encode(&spm().i32s("scores", &[-1; 289]).tokenizer().unwrap(), NASTY).is_empty());
    assert!(!encode(&spm().without("scores").tokenizer().unwrap(), NASTY).is_empty());
    assert_eq!(bpe("gpt-2").without("pre").tokenizer().unwrap().kind(), "gpt2/default");
}

#[test]
fn special_tokens_have_limits() {
    let with = |specials: Vec<String>| {
        let mut tokens = bpe_tokens();
        let mut types = vec![1; tokens.len()];
        types.resize(tokens.len() + specials.len(), 4);
        tokens.extend(specials);
        bpe("gpt-2").strings("tokens", &tokens).i32s("token_type", &types).tokenizer().unwrap()
    };
    // Took minutes: the automaton of one piece of 1 MiB.
    for long in [257, 1 << 20] {
        let error = with(vec!["a".repeat(long)]).encode("a", false, false, &Never).unwrap_err();
        assert!(matches!(&error, Error::Tokenizer(what) if what.contains("at most 256 bytes")), "{error}");
    }
    let many = |count: usize| with((0..count).map(|index| format!("{}{index:06}", "a".repeat(250))).collect());
    assert!(matches!(many(9000).encode("a", false, false, &Never), Err(Error::Tokenizer(_))));
    let start = Instant::now();
    assert_eq!(encode(&many(8000), &format!("{}000001", "a".repeat(251))), [97, 312]);
    let runs = with((2..=256).map(|length| " ".repeat(length)).collect());
    assert_eq!(encode(&runs, &" ".repeat(600)).len(), 3);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn bytes_without_a_token() {
    let mut tokens = bpe_tokens();
    tokens[usize::from(b'z')] = "<|was-z|>".to_owned();
    let tokenizer = bpe("gpt-2").strings("tokens", &tokens).tokenizer().unwrap();
    assert_eq!(encode(&tokenizer, "hello"), [259]);
    // They are left out, and nothing is merged across the gap.
    for (text, expected) in [("z", ""), ("zz", ""), ("hello z", "hello "), ("zaz", "a"), ("zhelloz", "hello")] {
        assert_eq!(encode(&tokenizer, text), encode(&tokenizer, expected), "{text}");
    }
    assert_eq!(encode(&tokenizer, "hezllo"), [encode(&tokenizer, "he"), encode(&tokenizer, "llo")].concat());
    assert_ne!(encode(&tokenizer, "hezllo"), [259]);
    // SentencePiece has an unknown token for that.
    let gguf = spm().gguf();
    let tokens = gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let rename = |token: &[u8]| if token.starts_with(b"<0x") { [b"zz", token].concat() } else { token.to_vec() };
    let tokens: Vec<Vec<u8>> = tokens.iter().map(rename).collect();
    let no_bytes = spm().strings("tokens", &tokens).i32s("token_type", &[1; 289]);
    assert_eq!(encode(&no_bytes.tokenizer().unwrap(), "a€b"), [282, 0, 261]);
    let nothing = no_bytes.i32("unknown_token_id", -1).tokenizer().unwrap();
    assert!(matches!(nothing.encode("€", false, false, &Never), Err(Error::Tokenizer(_))));
}

#[test]
fn cancelled() {
    let text = "a b ".repeat(10_000);
    for file in [bpe("gpt-2"), spm(), wordpiece(), unigram()] {
        let tokenizer = file.tokenizer().unwrap();
        assert!(matches!(tokenizer.encode(&text, false, false, &|| true), Err(Error::Cancelled)));
        assert!(!tokenizer.encode(&text, false, false, &Never).unwrap().is_empty());
    }
}

/// Times grow with the text, not with its square: one MiB of anything. The limit is loose because tests run on busy machines; a
/// quadratic step would take minutes.
#[test]
fn linear_time_on_a_mebibyte_of_anything() {
    const MIB: usize = 1 << 20;
    let all_bytes = String::from_utf8_lossy(&(0..=255).collect::<Vec<u8>>().repeat(4096)).into_owned();
    let texts = [
        "a".repeat(MIB),
        " ".repeat(MIB),
        " ".repeat(MIB) + "x",
        "\n".repeat(MIB),
        " \n".repeat(MIB / 2),
        "\u{301}".repeat(MIB / 2),
        "7".repeat(MIB),
        "'".repeat(MIB),
        "é".repeat(MIB / 4) + &"A".repeat(MIB / 2),
        "aA".repeat(MIB / 2),
        "<".repeat(MIB),
        "<tool>".repeat(MIB / 6),
        "abc".repeat(MIB / 3),
        all_bytes,
    ];
    let files = ["default", "llama-bpe", "gpt-4o", "jais-2", "deepseek-llm", "afmoe", "exaone-moe"].map(bpe);
    // With a space prefix, runs of user-defined tokens would not come back as they went in.
    for file in files.into_iter().chain([spm().bool("add_space_prefix", false)]) {
        let tokenizer = file.tokenizer().unwrap();
        for text in &texts {
            let start = Instant::now();
            let ids = encode(&tokenizer, text);
            assert!(tokenizer.decode(&ids, true).unwrap() == *text);
            let head: String = text.chars().take(4).collect();
            assert!(start.elapsed() < Duration::from_secs(20), "{} {head:?} {:?}", tokenizer.kind(), start.elapsed());
        }
    }
    // These do not give back what went in.
    for tokenizer in [wordpiece(), unigram()].map(|file| file.tokenizer().unwrap()) {
        for text in &texts {
            let start = Instant::now();
            encode(&tokenizer, text);
            assert!(start.elapsed() < Duration::from_secs(20), "{} {:?}", tokenizer.kind(), start.elapsed());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pieces of any tokens are text, hold back little, and join to the decoded whole; so do the bytes of the tokens.
    #[test]
    fn pieces_join_to_the_whole(ids in prop::collection::vec(0u32..289, 0..60), special: bool, which in 0..5) {
        let tokenizer = match which {
            0 => bpe("gpt-2").tokenizer().unwrap(),
            1 => spm().tokenizer().unwrap(),
            2 => wordpiece().tokenizer().unwrap(),
            3 => unigram().bool("add_space_prefix", true).tokenizer().unwrap(),
            _ => spm().bool("add_space_prefix", false).tokenizer().unwrap(),
        };
        let ids: Vec<u32> = ids.into_iter().map(|id| id % tokenizer.vocab_size() as u32).collect();
        let mut detokenizer = tokenizer.detokenizer(special);
        let (mut joined, mut bytes) = (String::new(), Vec::new());
        for id in &ids {
            joined += &detokenizer.push(*id).unwrap();
            bytes.extend_from_slice(&tokenizer.token_bytes(*id, special).unwrap());
            let seen = joined.matches('\u{fffd}').count();
            prop_assert!(seen > 0 || bytes.len() <= joined.len() + 3 + usize::from((1..4).contains(&which)));
        }
        joined += &detokenizer.finish();
        prop_assert_eq!(&joined, &tokenizer.decode(&ids, special).unwrap());

        let mut continuation = tokenizer.continuation(special);
        let mut continued: String = ids.iter().map(|id| continuation.push(*id).unwrap()).collect();
        continued += &continuation.finish();
        prop_assert_eq!(continued, String::from_utf8_lossy(&bytes).into_owned());
    }

    /// What goes in comes out.
    #[test]
    fn round_trip(text in any::<String>(), spm_model: bool) {
        let tokenizer = if spm_model { spm() } else { bpe("llama-bpe") }.tokenizer().unwrap();
        let ids = tokenizer.encode(&text, true, false, &Never).unwrap();
        // SentencePiece cannot tell U+2581 from a space.
        let expected = if spm_model { text.replace('\u{2581}', " ") } else { text };
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected);
    }

    /// What unigram decides early is what the whole text gives: the best of all ways.
    #[test]
    fn unigram_equals_trying_all_ways(text in "[abcé ]{0,9}") {
        let scores = |piece: &str| match piece {
            "a" | "b" | "c" => Some(-2.5),
            "bc" | " " => Some(-3.0),
            " a" => Some(-2.0),
            "ab" | "é" => Some(-4.0),
            " ab" => Some(-6.0),
            "abc" => Some(-9.0),
            _ => None,
        };
        fn best(text: &str, scores: &dyn Fn(&str) -> Option<f64>) -> f64 {
            let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
            let ways = ends.filter_map(|end| Some(scores(&text[..end])? + best(&text[end..], scores)));
            if text.is_empty() { 0.0 } else { ways.fold(f64::MIN, f64::max) }
        }
        let tokenizer = unigram().tokenizer().unwrap();
        let ids = encode(&tokenizer, &text);
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.clone());
        let piece = |id: &u32| tokenizer.token_text(*id).unwrap().replace('▁', " ");
        let sum: f64 = ids.iter().map(|id| scores(&piece(id)).unwrap()).sum();
        prop_assert_eq!(sum, best(&text, &scores));
    }

    /// Any bytes as a normaliser are refused, or give an error or some tokens.
    #[test]
    fn any_charsmap(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 0u32..200, text: String) {
        let bytes = [&size.to_le_bytes()[..], &bytes, &[0]].concat();
        if let Ok(tokenizer) = unigram().u8s("precompiled_charsmap", &bytes).tokenizer() {
            let _ = tokenizer.encode(&text, false, false, &Never);
        }
    }

    /// A text is cut where no merge can cross, or not at all, as long as it is short and no longer one came before.
    #[test]
    fn cutting_changes_no_token(text in "[ab cé\u{301}1<>\n▁]{0,80}") {
        let tokenizer = spm().tokenizer().unwrap();
        let whole = encode(&tokenizer, &text);
        encode(&tokenizer, &"abc ".repeat(2048));
        prop_assert_eq!(encode(&tokenizer, &text), whole);
    }

    /// The merges of any list, of pairs in any order, with several ways to one piece and with repeated lines.
    #[test]
    fn merges_equal_the_tokenizers_crate(
        pairs in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..40),
        order in any::<u64>(),
        words in prop::collection::vec("[abc]{1,24}", 1..8),
        ignore_merges: bool,
    ) {
        let mut pieces = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut merges = Vec::new();
        for (left, right) in pairs {
            let (left, right) = (left.get(&pieces).clone(), right.get(&pieces).clone());
            let whole = format!("{left}{right}");
            if whole.len() <= 6 {
                merges.push((left, right));
                if !pieces.contains(&whole) {
                    pieces.push(whole);
                }
            }
        }
        let turn = order as usize % merges.len().max(1);
        merges.rotate_left(turn);
        let mut tokens = bpe_tokens();
        tokens.retain(|token| !pieces.contains(token));
        tokens.extend(pieces);
        let lines: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let file = File::default().string("model", b"gpt2").string("pre", if ignore_merges { b"llama-bpe" } else { b"gpt-2" });
        let file = file.strings("tokens", &tokens).strings("merges", &lines).bool("add_bos_token", false);
        let tokenizer = file.tokenizer().unwrap();

        let vocabulary: tokenizers::models::bpe::Vocab = tokens.into_iter().zip(0..).collect();
        // The crate takes the last of equal merges, llama.cpp the first.
        let mut first = Vec::new();
        for merge in merges {
            if !first.contains(&merge) {
                first.push(merge);
            }
        }
        let model = BPE::builder().vocab_and_merges(vocabulary, first).ignore_merges(ignore_merges).build().unwrap();
        for word in words {
            let expected: Vec<u32> = model.tokenize(&word).unwrap().iter().map(|token| token.id).collect();
            prop_assert_eq!(encode(&tokenizer, &word), expected, "{}", word);
        }
    }
}
