//! Masks, ends, forced tokens, and what is refused.

use fastq_core::Error;
use fastq_core::grammar::{Grammar, GrammarSource};

use super::support::{Model, accepts, reals, tiny};

fn regex(model: &Model, expression: &str) -> Grammar {
    model.compile(&GrammarSource::Regex(expression.to_owned())).unwrap()
}

/// The texts of the tokens that may come next, the end as `END`.
fn next(model: &Model, matcher: &mut fastq_core::Matcher) -> Vec<String> {
    let mut logits = vec![0.0f32; model.tokenizer.vocab_size() + 3];
    matcher.mask(&mut logits).unwrap();
    let allowed = (0..).zip(&logits).filter(|(_, logit)| **logit == 0.0).map(|(id, _)| id);
    let mut texts: Vec<String> = allowed
        .map(|id| match model.tokenizer.is_end_of_generation(id) {
            true => "END".to_owned(),
            false => String::from_utf8_lossy(&model.tokenizer.token_bytes(id, false).unwrap()).into_owned(),
        })
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

fn id(model: &Model, text: &str) -> u32 {
    let is = |id: &u32| *model.tokenizer.token_bytes(*id, false).unwrap() == *text.as_bytes();
    (0..model.tokenizer.vocab_size() as u32).find(is).unwrap()
}

#[test]
fn masks_allow_what_may_follow_and_nothing_else() {
    for model in tiny() {
        let mut matcher = regex(model, "[abc]{2}").matcher();
        let first = next(model, &mut matcher);
        assert!(["a", "b", "c", "ab"].iter().all(|text| first.contains(&(*text).to_owned())), "{first:?}");
        assert!(!first.contains(&"abc".to_owned()) && !first.contains(&"END".to_owned()) && !matcher.finished());
        matcher.accept(id(model, "a")).unwrap();
        assert_eq!(next(model, &mut matcher), ["a", "b", "c"]);
        matcher.accept(id(model, "b")).unwrap();
        // Only the end is left, which the scheduler need not compute.
        assert!(matcher.finished());
        assert_eq!(next(model, &mut matcher), ["END"]);
        assert!(matcher.forced().is_empty());
        matcher.accept(model.tokenizer.end_of_generation()[0]).unwrap();
        assert!(matcher.finished());
        assert_eq!(next(model, &mut matcher), ["END"]);
    }
}

#[test]
fn the_end_is_allowed_where_the_text_may_end() {
    let model = &tiny()[0];
    let mut matcher = regex(model, "a+").matcher();
    assert!(!next(model, &mut matcher).contains(&"END".to_owned()));
    let refused = matcher.accept(model.tokenizer.end_of_generation()[0]).unwrap_err();
    assert!(refused.to_string().contains("an end token before the grammar is complete"), "{refused}");
    for _ in 0..3 {
        matcher.accept(id(model, "a")).unwrap();
        assert_eq!(next(model, &mut matcher), ["END", "a"]);
        assert!(!matcher.finished());
    }
    matcher.accept(model.tokenizer.end_of_generation()[0]).unwrap();
    assert!(matcher.finished());
    assert!(matcher.accept(id(model, "a")).is_err());
}

#[test]
fn a_refused_token_changes_nothing() {
    for model in tiny() {
        let mut matcher = regex(model, "ab").matcher();
        for token in
            [id(model, "b"), model.tokenizer.vocab_size() as u32, u32::MAX, model.tokenizer.end_of_generation()[0]]
        {
            assert!(matches!(matcher.accept(token), Err(Error::Grammar(_))), "{token}");
            assert!(!matcher.allows(token).unwrap());
        }
        matcher.accept(id(model, "a")).unwrap();
        matcher.accept(id(model, "b")).unwrap();
        assert!(matcher.finished());
    }
}

#[test]
fn what_is_forced_is_spelled_as_the_tokenizer_spells_it() {
    for model in tiny() {
        let grammar = regex(model, "hello world[!?]");
        let mut matcher = grammar.matcher();
        let mut written = Vec::new();
        while let Some(token) = { matcher.forced().first().copied() } {
            assert_eq!(next(model, &mut matcher).len(), 1);
            matcher.accept(token).unwrap();
            written.push(token);
        }
        let encoded = model.tokenizer.encode("hello world", false, false, &fastq_core::Never).unwrap();
        let text = model.tokenizer.decode(&encoded, false).unwrap();
        assert_eq!(text, "hello world");
        // The last token may become another one with what follows it, so it stays open.
        assert!(!written.is_empty());
        if !model.tokenizer.add_space_prefix() {
            assert!(encoded.starts_with(&written), "{written:?} {encoded:?}");
        }
        // Another spelling of the same text is a choice of the caller.
        assert!(accepts(model, &grammar, "hello world!") && !accepts(model, &grammar, "hello world"));
    }
}

#[test]
fn control_tokens_are_no_text() {
    // `<|end|>` is a control token that ends, `<tool>` is text.
    let model = &tiny()[0];
    let grammar = regex(model, "(?s).*");
    let mut matcher = grammar.matcher();
    let allowed = next(model, &mut matcher);
    assert!(allowed.contains(&"<tool>".to_owned()) && allowed.contains(&"END".to_owned()));
    assert!(accepts(model, &regex(model, "<\\|end\\|>"), "<|end|>"));
}

#[test]
fn answers_share_nothing_that_changes() {
    let model = &tiny()[0];
    let grammar = regex(model, "(ab|cd)+");
    let (mut one, mut two) = (grammar.matcher(), grammar.matcher());
    one.accept(id(model, "a")).unwrap();
    two.accept(id(model, "c")).unwrap();
    assert_eq!(next(model, &mut one), ["b"]);
    assert_eq!(next(model, &mut two), ["d"]);
    assert_eq!(grammar, grammar.clone());
    assert_ne!(grammar, regex(model, "(ab|cd)+"));
    // The mask is computed while the model computes, on another thread.
    let mut moved = std::thread::spawn(move || {
        one.prepare().unwrap();
        one
    })
    .join()
    .unwrap();
    assert_eq!(next(model, &mut moved), ["b"]);
}

#[test]
fn choices_are_exactly_these_texts() {
    let choices: Vec<String> =
        ["yes", "no", "not at all", "a\"b\\c\n\u{7f}", "é", "🙂", "", "</s>"].map(String::from).into();
    for model in tiny().iter().chain(reals()) {
        let grammar = model.compile(&GrammarSource::Choices(choices.clone())).unwrap();
        for choice in &choices {
            assert!(accepts(model, &grammar, choice), "{} {choice:?}", model.name);
        }
        for other in ["ye", "yess", "n", "not", "nothing", "Yes", " yes", "yes ", "a", "e"] {
            assert!(!accepts(model, &grammar, other), "{} {other:?}", model.name);
        }
    }
    let model = &tiny()[0];
    for (choices, what) in [(vec![], "found 0"), (vec!["a".to_owned(); 10_001], "found 10001")] {
        let error = model.compile(&GrammarSource::Choices(choices)).unwrap_err();
        assert!(matches!(error, Error::Grammar(_)) && error.to_string().contains(what), "{error}");
    }
    for (choices, expected) in [
        (vec!["a".repeat(1 << 13); 129], "choices must have at most 1048576 bytes, found 1056768"),
        (vec!["a".repeat((1 << 13) + 1)], "a choice must have at most 8192 bytes, found 8193"),
    ] {
        assert_eq!(model.compile(&GrammarSource::Choices(choices)).unwrap_err().to_string(), expected);
    }
}

#[test]
fn lark_is_taken_as_it_is() {
    for model in tiny() {
        let source = "start: \"[\" (NUMBER (\",\" NUMBER)*)? \"]\"\nNUMBER: /[0-9]+/\n%ignore \" \"";
        let grammar = model.compile(&GrammarSource::Lark(source.to_owned())).unwrap();
        for (text, expected) in [("[]", true), ("[1, 23]", true), ("[1,]", false), ("[1", false)] {
            assert_eq!(accepts(model, &grammar, text), expected, "{text}");
        }
        let source = "start: \"<\" value \">\" // a comment with a \" and a /\nvalue: %json {\n\"type\": \"integer\", \"minimum\": 3 } | /a\\/\"b/i | \"#//\"";
        let grammar = model.compile(&GrammarSource::Lark(source.to_owned())).unwrap();
        for (text, expected) in [("<3>", true), ("<A/\"b>", true), ("<#//>", true), ("<2>", false), ("<a>", false)] {
            assert_eq!(accepts(model, &grammar, text), expected, "{text}");
        }
        for (source, expected) in [
            (
                "start: \"a\"\n  | %json {\"uniqueItems\": true}",
                "lark: line 2: schema: keyword `uniqueItems` is not supported (at #/uniqueItems)",
            ),
            (
                "start: /a{1000}{1000}/",
                "lark: line 1: 65536 characters at most are supported with all repetitions written out, found more in \"a{1000}{1000}\"",
            ),
            ("start: %json {", "lark: line 1: %json must be followed by a schema in JSON"),
        ] {
            assert_eq!(model.compile(&GrammarSource::Lark(source.to_owned())).unwrap_err().to_string(), expected);
        }
        let error = model.compile(&GrammarSource::Lark("start: foo\n".to_owned())).unwrap_err();
        assert!(matches!(&error, Error::Grammar(what) if what.contains("foo")), "{error}");
    }
}
