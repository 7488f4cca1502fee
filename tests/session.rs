//! Sessions, their files, and the prompt cache: what goes on from a file has the bits of what never was in one.

#[path = "model/tiny.rs"]
mod tiny;
#[path = "common/tiny_model.rs"]
mod tiny_model;

use std::path::{Path, PathBuf};

use fastq_core::generate::Kept;
use fastq_core::kv_cache::WINDOW_SLACK;
use fastq_core::model::Replacement;
use fastq_core::sampler::SamplerOptions;
use fastq_core::session::{MIN_TOKENS, is_session, load, save};
use fastq_core::{
    Completion, Error, FinishReason, Generation, GenerationOptions, KvFormat, LoadOptions, Model, Never, Piece, Prompt,
    PromptCache, Session,
};
use serde_json::{Value, json};
use tiny::{Tiny, tokens};

/// The end token of the tiny models, where a message ends.
const END: u32 = 2;

fn options() -> LoadOptions {
    LoadOptions { threads: Some(1), prefill_chunk: 32, ..LoadOptions::default() }
}

/// One of each kind of cache: all positions, windows, experts with windows, recurrent states.
fn kinds() -> [Tiny; 5] {
    [tiny::llama(), tiny::gemma(), tiny::gpt_oss(), tiny::lfm2(), tiny::qwen35()]
}

/// A prompt of a message that ends, and the beginning of an answer.
fn prompt(seed: u64, len: usize) -> Vec<u32> {
    let mut prompt: Vec<u32> = tokens(seed, len).iter().map(|token| *token.max(&3)).collect();
    prompt[len - 4] = END;
    prompt
}

fn answer(model: &Model, kept: Option<Kept>, prompt: &[u32]) -> (Completion, Kept) {
    let options = GenerationOptions { max_tokens: Some(6), ignore_eos: true, ..GenerationOptions::default() };
    let prompt = Prompt::Tokens(prompt.to_vec());
    let mut generation = Generation::resume(model, kept, prompt, &options, &Never).expect("starts");
    while !generation.finished() {
        generation.step(&Never).expect("steps");
    }
    let kept = generation.take_kept().expect("kept");
    (generation.into_completions().remove(0), kept)
}

fn refused<T>(result: fastq_core::Result<T>) -> String {
    match result {
        Err(error @ Error::Session { .. }) => error.to_string(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

/// A folder that goes away with the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.0.path()).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        files
    }
}

#[test]
fn what_was_loaded_goes_on_with_the_same_bits() {
    let folder = Folder::new();
    for tiny in kinds() {
        for &kv in KvFormat::ALL {
            for len in [5, 64, 150, 300] {
                let name = format!("{} {} {len}", tiny.architecture, kv.name());
                let model = tiny.load(&LoadOptions { kv, ..options() }).expect("loads");
                let first = prompt(1, len);
                let (one, kept) = answer(&model, None, &first);
                let path = folder.path("kept.kv");
                save(&kept, &model, &path, &json!({ "len": len }), &Never).expect("saves");
                // Another process has a model of its own, with other threads and chunks.
                let other = LoadOptions { kv, threads: Some(2), prefill_chunk: 7, ..LoadOptions::default() };
                let other = tiny.load(&other).expect("loads");
                let (loaded, extra) = load(&other, &path, &Never).expect("loads");
                assert_eq!((loaded.tokens(), &extra["len"]), (kept.tokens(), &json!(len)), "{name}");
                assert_eq!(loaded.sequence().bytes() > 0, len > 0);
                // It goes on where the answer ended, and the second time with another beginning of the answer.
                let next = [&first[..], &one.tokens, &[7, 8, 9, END, 40, 41]].concat();
                let again = [&first[..first.len() - 3], &[50, 51, 52]].concat();
                let (expected, kept) = answer(&model, Some(kept), &next);
                let (found, loaded) = answer(&other, Some(loaded), &next);
                assert_eq!((&found.tokens, found.cached_tokens), (&expected.tokens, expected.cached_tokens), "{name}");
                assert!(found.cached_tokens >= len - 4, "{name}: {}", found.cached_tokens);
                assert_eq!(found.tokens, answer(&model, None, &next).0.tokens, "{name}");
                let (expected, _) = answer(&model, Some(kept), &again);
                let (found, _) = answer(&other, Some(loaded), &again);
                assert_eq!((&found.tokens, found.cached_tokens), (&expected.tokens, expected.cached_tokens), "{name}");
                assert!(found.cached_tokens >= len - 4, "{name}: {}", found.cached_tokens);
            }
        }
    }
}

/// Pages are not stored as wholes, and what a sequence has forgotten is not stored at all.
#[test]
fn a_file_is_as_small_as_its_text() {
    let folder = Folder::new();
    let path = folder.path("a.kv");
    let model = tiny::llama().load(&options()).expect("loads");
    // Three layers of two heads with keys and values of 64 f16, and the token.
    let position = 3 * 2 * 2 * 64 * 2 + 4;
    let text = prompt(1, 30);
    let (_, kept) = answer(&model, None, &text);
    let len = kept.tokens().len();
    save(&kept, &model, &path, &Value::Null, &Never).expect("saves");
    let size = std::fs::metadata(&path).expect("there").len() as usize;
    assert!((len * position..len * position + 200).contains(&size), "{size} bytes for {len} positions");
    // A text that was cut leaves nothing of the rest: the file is the one of a text that was never longer.
    let (short, long) = (prompt(1, 200)[..20].to_vec(), prompt(1, 200));
    let cut = |kept: Option<Kept>| {
        let (_, kept) = answer(&model, kept, &short);
        let name = folder.path("cut.kv");
        save(&kept, &model, &name, &Value::Null, &Never).expect("saves");
        std::fs::read(name).expect("there")
    };
    let (_, kept) = answer(&model, None, &long);
    assert!(cut(Some(kept)) == cut(None));
}

#[test]
fn windows_can_go_back_after_loading() {
    let folder = Folder::new();
    for tiny in [tiny::gemma(), tiny::gpt_oss()] {
        let model = tiny.load(&options()).expect("loads");
        let first = prompt(3, 400);
        let (_, kept) = answer(&model, None, &first);
        let path = folder.path("kept.kv");
        save(&kept, &model, &path, &Value::Null, &Never).expect("saves");
        for back in [1, 32, WINDOW_SLACK] {
            let (loaded, _) = load(&model, &path, &Never).expect("loads");
            let mut sequence = loaded.sequence().fork();
            let len = sequence.len() - back;
            assert_eq!(sequence.truncate(len).expect("within the slack"), len);
            let next = [&loaded.tokens()[..len], &[90, 91, 92]].concat();
            let (found, _) = answer(&model, Some(loaded), &next);
            assert_eq!((found.cached_tokens, found.tokens), (len, answer(&model, None, &next).0.tokens));
        }
    }
}

#[test]
fn another_model_is_refused() {
    let folder = Folder::new();
    let path = folder.path("kept.kv");
    let model = tiny::llama().load(&options()).expect("loads");
    let (_, kept) = answer(&model, None, &prompt(1, 40));
    save(&kept, &model, &path, &Value::Null, &Never).expect("saves");
    assert!(is_session(&path) && !is_session(&folder.path("none")) && !is_session(folder.0.path()));
    let same = tiny::llama().load(&LoadOptions { context: Some(100), threads: Some(2), ..options() }).expect("loads");
    assert_eq!(same.fingerprint(), model.fingerprint());
    load(&same, &path, &Never).expect("context, threads and chunks do not matter");

    let replaced = |name: &str| {
        let tensor = model.gguf().tensor(name).expect("there");
        let mut data = model.gguf().tensor_data(tensor).to_vec();
        let middle = data.len() / 2;
        data[middle] ^= 1;
        let replacement = Replacement { ty: tensor.ty, data: data.into() };
        model.with_replaced(&[(name.to_owned(), replacement)].into()).expect("replaces")
    };
    let with = |change: &dyn Fn(&mut Tiny)| {
        let mut tiny = tiny::llama();
        change(&mut tiny);
        tiny.load(&options()).expect("loads")
    };
    let others = [
        ("weights", tiny::granitemoe().load(&options()).expect("loads")),
        ("kv format", tiny::llama().load(&LoadOptions { kv: KvFormat::F32, ..options() }).expect("loads")),
        ("key", with(&|tiny| tiny.keys.push(("llama.rope.freq_base".into(), 5000f32.into())))),
        ("layers", with(&|tiny| tiny.layers = 4)),
        ("replaced", replaced("blk.1.attn_k.weight")),
    ];
    for (what, other) in &others {
        let text = refused(load(other, &path, &Never));
        assert!(text.contains("another model") && text.contains("at byte 16"), "{what}: {text}");
        assert!(
            matches!(save(&kept, other, &folder.path("x"), &Value::Null, &Never), Err(Error::Argument(_))),
            "{what}"
        );
    }
    let short = tiny::llama().load(&LoadOptions { context: Some(30), ..options() }).expect("loads");
    let error = load(&short, &path, &Never);
    assert!(matches!(&error, Err(Error::ContextOverflow(text)) if text.contains("45 positions")), "{error:?}");
    // Room for one sequence only.
    let tight = LoadOptions { kv_limit: Some(model.plan().kv[0].page_bytes), ..options() };
    let tight = tiny::llama().load(&tight).expect("loads");
    let (_first, _) = load(&tight, &path, &Never).expect("there is room");
    assert!(matches!(load(&tight, &path, &Never), Err(Error::Memory(_))));
    assert_eq!(tight.kv_used_bytes(), tight.plan().kv[0].page_bytes, "what was refused is given back");
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = Folder::new();
    let model = tiny::llama().load(&options()).expect("loads");
    assert!(matches!(load(&model, &folder.path("none.kv"), &Never), Err(Error::NotFound(_))));
    assert!(refused(load(&model, folder.0.path(), &Never)).contains("a folder"));
    for (bytes, what) in [
        (&b""[..], "another kind of file"),
        (b"GGUF", "another kind of file"),
        (b"fastq-kv", "not complete"),
        (b"fastq-kv\x02\0\0\0........................................................", "found 2"),
    ] {
        let path = folder.path("some.kv");
        std::fs::write(&path, bytes).expect("writes");
        let text = refused(load(&model, &path, &Never));
        assert!(text.contains("some.kv") && text.contains(what), "{text}");
    }
    // A prompt is not a conversation.
    let (_, kept) = answer(&model, None, &prompt(1, 20));
    let path = folder.path("kept.kv");
    for (extra, what) in [
        (Value::Null, "a conversation"),
        (json!([1]), "a conversation"),
        (json!({ "messages": "hi" }), "a list of objects"),
        (json!({ "messages": [1] }), "a list of objects"),
        (json!({ "messages": [], "variables": 3 }), "an object"),
    ] {
        save(&kept, &model, &path, &extra, &Never).expect("saves");
        let text = refused(Session::load(&model, &path, &Never).map(drop));
        assert!(text.contains(what), "{text}");
    }
    assert!(matches!(load(&model, &path, &|| true), Err(Error::Cancelled)));
    assert!(matches!(save(&kept, &model, &folder.path("c.kv"), &Value::Null, &|| true), Err(Error::Cancelled)));
    assert_eq!(folder.files().len(), 2, "nothing is left of what was not completed: {:?}", folder.files());
}

/// Puts the hashes right again, so that the numbers themselves are looked at.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let front =
        64usize.saturating_add(number(32)).saturating_add(number(36)).saturating_add(number(12).saturating_mul(4));
    if front <= bytes.len() {
        let mut hash = Xxh3Default::new();
        hash.update(&bytes[..48]);
        hash.update(&bytes[64..front]);
        bytes[48..64].copy_from_slice(&hash.digest128().to_le_bytes());
    }
    let end = bytes.len() - 16;
    let hash = xxh3_128(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// Every byte of the front and many of the data are changed; the file is cut everywhere in the front and at many places behind it.
#[test]
fn damage_is_found() {
    let folder = Folder::new();
    let path = folder.path("kept.kv");
    for tiny in kinds() {
        let model = tiny.load(&options()).expect("loads");
        let (_, kept) = answer(&model, None, &prompt(1, 90));
        save(&kept, &model, &path, &json!({ "messages": [{ "role": "user" }] }), &Never).expect("saves");
        drop(kept);
        let used = model.kv_used_bytes();
        let good = std::fs::read(&path).expect("there");
        assert!(sealed(good.clone()) == good, "the test knows where the hashes are");
        let front = 64 + 95 * 4 + 100;
        let places =
            || (0..front).chain((front..good.len()).step_by(good.len() / 50)).chain(good.len() - 17..good.len());
        for at in places() {
            let name = format!("{} byte {at} of {}", tiny.architecture, good.len());
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).expect("writes");
            assert!(refused(load(&model, &path, &Never)).contains("kept.kv"), "{name}");
            std::fs::write(&path, &good[..at]).expect("writes");
            assert!(refused(load(&model, &path, &Never)).contains("kept.kv"), "{name}");
            // With hashes that fit: values may be others, numbers are still compared with the model and the file.
            if at < front {
                std::fs::write(&path, sealed(bytes)).expect("writes");
                match load(&model, &path, &Never) {
                    Err(Error::Session { .. }) => {}
                    Ok((kept, _)) => assert!(at >= 48 && kept.tokens().len() == 95, "{name}"),
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
        std::fs::write(&path, [&good[..], b"x"].concat()).expect("writes");
        assert!(refused(load(&model, &path, &Never)).contains("expected a file of"), "{}", tiny.architecture);
        assert!(model.kv_used_bytes() <= used + 16 * model.plan().kv.iter().map(|kv| kv.page_bytes).max().unwrap_or(0));
    }
}

/// Numbers of an outline that do not fit the cache, in files whose hashes do.
#[test]
fn outlines_are_compared_with_the_cache() {
    let folder = Folder::new();
    let path = folder.path("kept.kv");
    for tiny in kinds() {
        let model = tiny.load(&options()).expect("loads");
        let (_, kept) = answer(&model, None, &prompt(1, 300));
        save(&kept, &model, &path, &Value::Null, &Never).expect("saves");
        let good = std::fs::read(&path).expect("there");
        let outline = u32::from_le_bytes(good[32..36].try_into().expect("four bytes")) as usize;
        for at in (64..64 + outline).step_by(4) {
            for value in [0u32, 1, 2, 4, 5, 63, 304, 306, u32::MAX] {
                let mut bytes = good.clone();
                if bytes[at..at + 4] == value.to_le_bytes() {
                    continue;
                }
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                std::fs::write(&path, sealed(bytes)).expect("writes");
                match load(&model, &path, &Never) {
                    Err(Error::Session { .. }) => {}
                    // Another length of a snapshot: its state is a value like any other.
                    Ok((kept, _)) => assert!(
                        model.spec().state_len > 0 && at >= 64 + 16,
                        "{} {at} {value} {}",
                        tiny.architecture,
                        kept.tokens().len()
                    ),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn chat_model(folder: &Folder) -> Model {
    let path = folder.path("chat.gguf");
    tiny_model::write(&path, tiny_model::Tiny::default());
    Model::load(&path, &options(), &Never).expect("loads")
}

fn chat_options() -> GenerationOptions {
    // Letters only: bytes that are no text would be other tokens in the next prompt.
    let letters = (0..26).map(|letter| (tiny_model::LETTER_A + letter, 100.0)).collect();
    let sampler = SamplerOptions { seed: 3, logit_bias: letters, ..SamplerOptions::default() };
    GenerationOptions { max_tokens: Some(7), ignore_eos: true, sampler, ..GenerationOptions::default() }
}

/// Sessions move between the threads of a program, and a Python object is shared by all of them.
#[test]
fn a_session_is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Session>();
    check::<PromptCache>();
}

fn nothing(_: &Piece) -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_conversation_computes_only_what_is_new() {
    let folder = Folder::new();
    let model = chat_model(&folder);
    let mut session = Session::new(&model, Some("be terse")).with_options(chat_options());
    let mut texts = Vec::new();
    for (turn, text) in ["hi there", "and then", "go on"].into_iter().enumerate() {
        let before = session.kept_tokens().len();
        let mut pieces = String::new();
        let answer = session
            .say(text, &Never, |piece| {
                pieces.push_str(&piece.text);
                Ok::<(), Error>(())
            })
            .expect("answers");
        assert_eq!(pieces, answer.text);
        assert_eq!(answer.cached_tokens, if turn == 0 { 0 } else { before }, "all of the turns before");
        assert_eq!(answer.timings.prefill_tokens, answer.prompt_tokens - answer.cached_tokens);
        texts.push(answer.text);
    }
    assert_eq!((session.messages().len(), session.system()), (7, Some("be terse")));

    // Saved after every turn and loaded into another model: the same conversation.
    let path = folder.path("talk.kv");
    Session::new(&model, Some("be terse")).save(&path, &Never).expect("saves");
    for (turn, text) in ["hi there", "and then", "go on"].into_iter().enumerate() {
        let model = Model::load(&folder.path("chat.gguf"), &options(), &Never).expect("loads");
        let mut session = Session::load(&model, &path, &Never).expect("loads").with_options(chat_options());
        let known = session.kept_tokens().len();
        let answer = session.say(text, &Never, nothing).expect("answers");
        assert_eq!((answer.cached_tokens, &answer.text), (known, &texts[turn]));
        assert!(turn == 0 || known > 0);
        session.save(&path, &Never).expect("saves");
    }
    let session_again = Session::load(&model, &path, &Never).expect("loads");
    assert_eq!(session_again.messages(), session.messages());
    let error = session.save(&folder.path("chat.gguf"), &Never);
    assert!(matches!(error, Err(Error::Argument(_))), "the model's file is not replaced: {error:?}");
}

#[test]
fn forks_go_their_own_way() {
    let folder = Folder::new();
    let model = chat_model(&folder);
    let mut first = Session::new(&model, None).with_options(chat_options());
    first.say("one", &Never, nothing).expect("answers");
    let mut second = first.fork();
    assert_eq!((first.messages(), first.kept_tokens()), (second.messages(), second.kept_tokens()));
    let known = first.kept_tokens().len();
    let left = first.say("left", &Never, nothing).expect("answers");
    let right = second.say("right", &Never, nothing).expect("answers");
    assert_eq!((left.cached_tokens, right.cached_tokens), (known, known));
    // As conversations that were never forked.
    for (text, expected) in [("left", &left), ("right", &right)] {
        let mut alone = Session::new(&model, None).with_options(chat_options());
        alone.say("one", &Never, nothing).expect("answers");
        assert_eq!(&alone.say(text, &Never, nothing).expect("answers").text, &expected.text);
    }
    first.reset(Some("new"));
    assert_eq!((first.messages().len(), second.messages().len()), (1, 4));
}

#[test]
fn a_turn_that_fails_leaves_the_conversation_as_it_was() {
    let folder = Folder::new();
    let model = chat_model(&folder);
    let mut session = Session::new(&model, None).with_options(chat_options());
    session.say("one", &Never, nothing).expect("answers");
    let (before, known) = (session.messages().to_vec(), session.kept_tokens().to_vec());
    let error = session.say("two", &Never, |_| Err(Error::Argument("enough".into())));
    assert!(matches!(error, Err(Error::Argument(_))));
    assert_eq!(session.messages(), before);
    let error = session.say(&"long ".repeat(100), &Never, nothing);
    assert!(matches!(error, Err(Error::ContextOverflow(_))), "{error:?}");
    assert_eq!(session.messages(), before);
    let answer = session.say("three", &Never, nothing).expect("answers");
    assert!(answer.cached_tokens <= known.len());

    // Stopped: as far as it got.
    let stopped = session.say("four", &|| true, nothing);
    assert!(
        matches!(stopped, Ok(ref answer) if answer.finish_reason == FinishReason::Cancelled)
            || matches!(stopped, Err(Error::Cancelled))
    );
    // By hand, with a message of the caller's.
    let count = session.messages().len();
    let generation = session.begin(vec![json!({ "role": "user", "content": "five" })], &Never).expect("begins");
    assert_eq!(session.messages().len(), count);
    let completion = session.end(generation, Some(json!({ "role": "assistant", "content": "mine" }))).expect("ends");
    assert_eq!(
        (completion.finish_reason, &session.messages()[count + 1]["content"]),
        (FinishReason::Cancelled, &json!("mine"))
    );
    let generation = session.begin(vec![json!({ "role": "user", "content": "six" })], &Never).expect("begins");
    session.abandon(generation);
    assert_eq!(session.messages().len(), count + 2);
    let stray = Generation::new(&model, vec!["a".into()], &chat_options(), &Never).expect("starts");
    assert!(matches!(session.end(stray, None), Err(Error::Argument(_))));
}

/// A second process: the same file in a model of its own.
fn process(tiny: &Tiny) -> Model {
    tiny.load(&options()).expect("loads")
}

/// The sequence of a prompt as far as `len`.
fn computed(model: &Model, prompt: &[u32]) -> Kept {
    answer(model, None, prompt).1
}

#[test]
fn a_second_process_finds_what_the_first_has_computed() {
    for tiny in kinds() {
        let folder = Folder::new();
        let name = tiny.architecture;
        let system = prompt(5, 200);
        {
            let model = process(&tiny);
            let cache = PromptCache::open(&folder.path("cache"), 1 << 30).expect("opens");
            assert!(cache.find(&model, &system, &Never).expect("searches").is_none());
            let kept = computed(&model, &system);
            assert!(cache.store(&model, &kept, &Never).expect("stores"));
            assert!(cache.store(&model, &kept, &Never).expect("is there"), "once is enough");
        }
        let model = process(&tiny);
        let cache = PromptCache::open(&folder.path("cache"), 1 << 30).expect("opens");
        // The same beginning, another question.
        let next = [&system[..197], &[60, 61, 62, 63, 64]].concat();
        let kept = cache.find(&model, &next, &Never).expect("searches").expect("is there");
        let (found, _) = answer(&model, Some(kept), &next);
        assert!(
            found.cached_tokens >= 196 && found.cached_tokens * 100 >= 95 * system.len(),
            "{name}: {}",
            found.cached_tokens
        );
        assert_eq!(found.tokens, answer(&model, None, &next).0.tokens, "{name}");
        assert_eq!(found.timings.prefill_tokens + found.cached_tokens, next.len(), "{name}");
        // Another text has nothing in common.
        assert!(cache.find(&model, &prompt(6, 200), &Never).expect("searches").is_none(), "{name}");
        assert!(cache.find(&model, &[], &Never).expect("searches").is_none(), "{name}");
        // Another model does not see it.
        let other = tiny.load(&LoadOptions { kv: KvFormat::Q8_0, ..options() }).expect("loads");
        assert!(cache.find(&other, &next, &Never).expect("searches").is_none(), "{name}");
        assert_eq!(cache.ignored(), 0, "{name}");
        assert!(matches!(cache.find(&model, &next, &|| true), Err(Error::Cancelled)));
    }
}

#[test]
fn the_longest_beginning_is_found() {
    let folder = Folder::new();
    let model = process(&tiny::llama());
    let cache = PromptCache::open(folder.0.path(), 1 << 30).expect("opens");
    let text = prompt(7, 300);
    for len in [10, 50, 120, 260] {
        let stored = cache.store(&model, &computed(&model, &text[..len]), &Never).expect("stores");
        assert_eq!(stored, len + 5 >= MIN_TOKENS, "{len}");
    }
    let common = |prompt: &[u32]| {
        let kept = cache.find(&model, prompt, &Never).expect("searches")?;
        Some(kept.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count())
    };
    assert_eq!(common(&text[..61]), Some(61), "of a longer one");
    assert_eq!(common(&text[..130]), Some(130));
    assert_eq!(common(&[&text[..120], &prompt(8, 90)].concat()), Some(120));
    assert_eq!(common(&text), Some(260));
    assert_eq!(
        common(&[&text[..20], &prompt(8, 90)].concat()),
        Some(20),
        "of a short one, rather than reading a long one"
    );
    assert_eq!(common(&text[..MIN_TOKENS]), None, "too short");
}

#[test]
fn the_cache_passes_over_damage_and_strangers() {
    let folder = Folder::new();
    let model = process(&tiny::gemma());
    let cache = PromptCache::open(folder.0.path(), 1 << 30).expect("opens");
    let text = prompt(9, 100);
    let kept = computed(&model, &text);
    let strangers = ["notes.txt", "talk.kv", ".hidden.kv", "a-1-b-1.kv"];
    strangers.iter().for_each(|name| std::fs::write(folder.path(name), b"mine").expect("writes"));
    cache.store(&model, &kept, &Never).expect("stores");
    let own: Vec<PathBuf> = folder.files().into_iter().filter(|path| is_session(path)).collect();
    let [path] = &own[..] else { panic!("{own:?}") };
    let good = std::fs::read(path).expect("there");
    let find = || cache.find(&model, &text, &Never).expect("no error of the caller's").is_some();
    assert!(find());
    let mut ignored = 0;
    for at in [0, 10, 20, 50, 70, 100, 400, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        for bytes in [&bytes[..], &good[..at]] {
            std::fs::write(path, bytes).expect("writes");
            assert!(!find(), "byte {at}");
            ignored += 1;
            assert_eq!((cache.ignored(), path.exists()), (ignored, false), "byte {at}");
            cache.store(&model, &kept, &Never).expect("stores");
            assert!(find(), "stored again after byte {at}");
        }
    }
    // A file under the name of another: found for what it holds.
    let renamed = path.to_string_lossy().replace("-105-", "-900-");
    std::fs::rename(path, &renamed).expect("renames");
    assert!(find() && Path::new(&renamed).exists());
    // What a process that was killed has left goes, what is not of the cache stays.
    let left = folder.path(&format!(".{}.partial-1", path.file_name().expect("a name").to_string_lossy()));
    std::fs::write(&left, b"half").expect("writes");
    cache.store(&model, &computed(&model, &prompt(10, 50)), &Never).expect("stores");
    assert!(!left.exists());
    strangers.iter().for_each(|name| assert!(folder.path(name).exists(), "{name}"));
}

#[test]
fn the_oldest_files_give_way() {
    let folder = Folder::new();
    let model = process(&tiny::llama());
    let texts: Vec<_> = (20..25).map(|seed| prompt(seed, 60)).collect();
    let kept: Vec<_> = texts.iter().map(|text| computed(&model, text)).collect();
    let one = {
        let cache = PromptCache::open(folder.0.path(), 1 << 30).expect("opens");
        cache.store(&model, &kept[0], &Never).expect("stores");
        std::fs::metadata(&folder.files()[0]).expect("there").len()
    };
    let cache = PromptCache::open(folder.0.path(), 3 * one + one / 2).expect("opens");
    let there = |index: usize| cache.find(&model, &texts[index], &Never).expect("searches").is_some();
    // Times of files are no finer than some milliseconds.
    let wait = || std::thread::sleep(std::time::Duration::from_millis(20));
    for index in [1, 2] {
        wait();
        assert!(cache.store(&model, &kept[index], &Never).expect("stores"));
    }
    wait();
    assert!(there(0), "used again, so it is the newest now");
    for index in [3, 4] {
        wait();
        assert!(cache.store(&model, &kept[index], &Never).expect("stores"));
    }
    assert_eq!([0, 1, 2, 3, 4].map(there), [true, false, false, true, true]);
    let small = PromptCache::open(folder.0.path(), one / 2).expect("opens");
    assert!(!small.store(&model, &kept[1], &Never).expect("not an error"), "larger than the limit");
    assert!(matches!(PromptCache::open(folder.0.path(), 0), Err(Error::Argument(_))));
    assert!(PromptCache::open(&folder.files()[0], 1).is_err(), "a file is no folder");
}

/// Threads stand for processes: they write, read and remove the same files.
#[test]
fn many_may_use_a_folder_at_once() {
    let folder = Folder::new();
    let text = prompt(30, 40);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (folder, text) = (&folder, &text);
            scope.spawn(move || {
                let model = process(&tiny::llama());
                // A limit that makes them remove each other's files.
                let cache = PromptCache::open(folder.0.path(), 600_000).expect("opens");
                let own = computed(&model, &prompt(40 + thread, 60));
                let shared = computed(&model, text);
                for _ in 0..10 {
                    cache.store(&model, &own, &Never).expect("stores");
                    cache.store(&model, &shared, &Never).expect("stores");
                    if let Some(kept) = cache.find(&model, text, &Never).expect("searches") {
                        assert_eq!(kept.tokens(), shared.tokens());
                    }
                }
                assert_eq!(cache.ignored(), 0);
            });
        }
    });
}
