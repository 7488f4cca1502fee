//! Regular expressions: whole texts, and what is refused.

use fastq_core::Error;
use fastq_core::grammar::GrammarSource;

use super::support::{accepts, draw, reals, tiny};

/// Expression, texts that match as a whole, texts that do not.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    (r"\d+", &["1", "0042", "٣"], &["", "a", "1a", " 1", "1\n"]),
    (r"^[a-z]+$", &["abc"], &["ABC", "abc1"]),
    (r"a|bc|", &["a", "bc", ""], &["ab", "b", "abc"]),
    (r"(a|b)*abb", &["abb", "aabb", "babb"], &["ab", "abba"]),
    (r"a{2,4}", &["aa", "aaaa"], &["a", "aaaaa"]),
    (r"[^/]+/[^/]+", &["a/b", "é/🙂"], &["a", "/b", "a/b/c"]),
    (r"\/\n\t\\", &["/\n\t\\"], &["/n"]),
    (r"(?i)yes|no", &["YES", "yes", "No"], &["ja"]),
    ("(?x) a b # comment / with a slash\n c", &["abc"], &["a b c"]),
    (r".", &["a", "é", "🙂"], &["\n", "", "ab"]),
    (r"(?s).", &["\n", "é"], &["", "ab"]),
    (r"(?P<year>[0-9]{4})-(?<month>[0-9]{2})", &["2024-01"], &["2024-1", "20240-01"]),
    (r"[\p{Greek}&&[^α]]+", &["βγ"], &["α", "abc"]),
    (r"a*?b", &["b", "aab"], &["a", "ba"]),
    ("", &[""], &["a"]),
    (r"\x41\u{1F642}", &["A🙂"], &["A"]),
    ("a\nb", &["a\nb"], &["ab"]),
];

#[test]
fn the_whole_text_matches() {
    for model in tiny().iter().chain(reals()) {
        for (expression, right, wrong) in CASES {
            let grammar = model.compile(&GrammarSource::Regex((*expression).to_owned())).unwrap();
            for text in *right {
                assert!(accepts(model, &grammar, text), "{} {expression:?} {text:?}", model.name);
            }
            for text in *wrong {
                assert!(!accepts(model, &grammar, text), "{} {expression:?} {text:?}", model.name);
            }
        }
    }
}

#[test]
fn random_answers_match() {
    for model in tiny().iter().chain(reals()) {
        for (expression, ..) in CASES {
            let grammar = model.compile(&GrammarSource::Regex((*expression).to_owned())).unwrap();
            let oracle = regex_automata::meta::Regex::new(&format!("\\A(?:{expression})\\z")).unwrap();
            for seed in 0..8 {
                let (text, complete) = draw(model, &grammar, seed, 300);
                assert!(complete, "{} {expression:?} {text:?}", model.name);
                assert!(oracle.is_match(&text), "{} {expression:?} {text:?}", model.name);
            }
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (expression, what) in [
        ("a(b", "regex: unclosed group at column 2 of \"a(b\""),
        ("[z-a]", "at column 2 of"),
        ("a**", ""),
        (r"\bword\b", "\\b, \\B and multi-line ^ and $ are not supported"),
        (r"a^b", ""),
        (r"(?m)^a$", "multi-line ^ and $ are not supported"),
        (r"(?=a)b", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?P<stop>a)b", "a group must not be named `stop`"),
        (r"(?-u:\xff)", ""),
        (r"[a&&b]", "matches no text"),
    ] {
        let source = GrammarSource::Regex(expression.to_owned());
        match tiny()[0].compile(&source) {
            Err(Error::Grammar(found)) => assert!(found.contains(what), "{expression}: {found}"),
            // What is not wrong after all.
            Ok(_) if what.is_empty() => {}
            other => panic!("{expression}: {other:?}"),
        }
    }
}
