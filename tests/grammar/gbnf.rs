//! GBNF: accepted and refused texts, and errors with line and column.

use fastq_core::Error;
use fastq_core::grammar::GrammarSource;

use super::support::{accepts, draw, reals, tiny};

/// Grammar, texts that match, texts that do not.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

pub(crate) const JSON: &str = r#"
# As llama.cpp has it.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;

const LIST: &str = "root ::= item+\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"";

const CHESS: &str = r#"
root   ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move   ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn   ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"#;

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Texts and escapes.
    (r#"root ::= "a\"b\\c\n\t\r\x41\u00e9\U0001F642\[\]""#, &["a\"b\\c\n\t\rAé🙂[]"], &["a"]),
    (r#"root ::= """#, &[""], &["a"]),
    (r#"root ::= "a" "" "b""#, &["ab"], &["a"]),
    // Classes.
    (r#"root ::= [a-c_é-]+"#, &["abc_-é"], &["d", ""]),
    (r#"root ::= [^a-c\n]"#, &["d", "é", "🙂"], &["a", "\n", ""]),
    (r#"root ::= [a-]+ [-b] [\]\[]"#, &["a-b]", "--["], &["ab"]),
    (r#"root ::= [\x00-\x1F🙂-🙃]"#, &["\u{1}", "🙃"], &[" "]),
    ("root ::= . [^]", &["ab", "\n🙂"], &["a", "abc"]),
    // How often.
    (r#"root ::= "a"* "b"+ "c"?"#, &["b", "aabbc"], &["a", "bcc"]),
    (r#"root ::= "a"{2} "b"{1,} "c"{0,2} "d"{ 1 , 3 } "e"{0}"#, &["aabd", "aabbbccddd"], &["abd", "aabdddd", "aabccc", "aabde"]),
    (r#"root ::= ("ab" | "c")+ "d""#, &["abcd", "cd"], &["d", "abc"]),
    (r#"root ::= ((("a")?)+ "b")*"#, &["", "aab", "bab"], &["a"]),
    // Alternatives, empty ones, several lines, comments.
    ("root ::= \"a\" |\n  \"b\" | # a comment | \"x\"\n  c\nc ::= \"c\"\n  | \"d\"\r\n\n# the end", &["a", "b", "c", "d"], &["x", ""]),
    (r#"root ::= | "a" root"#, &["", "aaa"], &["b"]),
    ("a ::= \"x\"\nroot ::=\n a a", &["xx"], &["x"]),
    ("root ::= ( # why\n \"a\"\n \"b\" )", &["ab"], &["a"]),
    ("root ::= under_score Upper-1\nunder_score ::= \"u\"\nUpper-1 ::= \"U\"", &["uU"], &["u"]),
    // Recursion, to the left, the right, in the middle, and through others.
    (r#"root ::= root "a" | "b""#, &["b", "baa"], &["a", "ab"]),
    (r#"root ::= "(" root ")" root | """#, &["", "()", "(())()"], &["(", ")(", "(()"]),
    ("root ::= a\na ::= \"[\" b? \"]\"\nb ::= a (\",\" a)*", &["[]", "[[],[[]]]"], &["[,]", "[[]"]),
    // What a lexer that takes all it can gets wrong.
    (r#"root ::= [a-z]* "end""#, &["end", "xend", "endend"], &["en", "endx"]),
    ("root ::= \"<\" x \">\"\nx ::= [a-z]+ x? \"b\"", &["<ab>", "<aabb>", "<abbb>", "<bb>"], &["<b>", "<a>"]),
    ("root ::= s \".\"\ns ::= \"a\" s \"b\" | \"a\" \"c\"? ", &["a.", "aab.", "aaabb.", "ac.", "aacb."], &["b.", "ab."]),
    ("root ::= s\ns ::= [a-z]+ | \"(\" s \")\" [a-z]* \"z\"", &["abc", "(a)z", "((x)bz)zz"], &["(a)", "((a)z)"]),
    ("root ::= r \";\"\nr ::= \"x\" | \"if \" r \"else \" r | [a-z]+ r", &["x;", "if xelse x;", "abx;", "ifx;"], &["if x;", "ab;"]),
    // Of llama.cpp.
    (JSON, &["{}", "{\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\"], \"b\": {\"c\": {}}}", "{\n  \"a\":\n 1}"], &["[]", "{\"a\":}", "{a:1}", "{\"a\":1,}"]),
    (ARITHMETIC, &["1+2=3\n", "(a1 *(b -2)) /3 = x\ny=1\n"], &["1+=2\n", "1=2", "(1=2\n"]),
    (LIST, &["- a\n", "- é x\n- b\n"], &["a\n", "- \n", "- a"]),
    (CHESS, &["1. e4 e5\n2. Nf3 Nc6\n", "1. exd5 O-O-O+\n12. e8=Q# Qh4\n"], &["1. e4\n", "1. e4 e5\n"]),
];

#[test]
fn texts_match_as_in_llama_cpp() {
    for model in tiny().iter().chain(reals().first()) {
        for (source, right, wrong) in CASES {
            let grammar = model.compile(&GrammarSource::Gbnf((*source).to_owned()));
            let grammar = grammar.unwrap_or_else(|error| panic!("{error}\n{source}"));
            for text in *right {
                assert!(accepts(model, &grammar, text), "{} {source}\n{text:?}", model.name);
            }
            for text in *wrong {
                assert!(!accepts(model, &grammar, text), "{} {source}\n{text:?}", model.name);
            }
        }
    }
}

#[test]
fn random_json_is_json() {
    for model in tiny().iter().chain(reals()) {
        let grammar = model.compile(&GrammarSource::Gbnf(JSON.to_owned())).unwrap();
        for seed in 0..20 {
            let (text, complete) = draw(model, &grammar, seed, 2_000);
            assert!(complete, "{} {text}", model.name);
            // An escape may be half of a surrogate pair.
            if !text.contains("\\u") {
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            }
        }
    }
}

#[test]
fn tokens_of_the_vocabulary() {
    // `<|end|>` is a control token, `<tool>` is text.
    let model = &tiny()[0];
    let tool = model.tokenizer.token_id("<tool>").unwrap();
    for source in ["root ::= \"a\" <tool> \"b\"".to_owned(), format!("root ::= \"a\" <[{tool}]> \"b\"")] {
        let grammar = model.compile(&GrammarSource::Gbnf(source)).unwrap();
        let mut matcher = grammar.matcher();
        let a = model.tokenizer.token_id("a").unwrap();
        let b = model.tokenizer.token_id("b").unwrap();
        matcher.accept(a).unwrap();
        assert!(matcher.accept(b).is_err());
        matcher.accept(tool).unwrap();
        matcher.accept(b).unwrap();
        assert!(matcher.finished());
    }
    let grammar = model.compile(&GrammarSource::Gbnf("root ::= !<tool> <tool>".to_owned())).unwrap();
    let mut matcher = grammar.matcher();
    assert!(matcher.accept(tool).is_err());
    matcher.accept(model.tokenizer.token_id("a").unwrap()).unwrap();
    matcher.accept(tool).unwrap();
    assert!(matcher.finished());
}

#[test]
fn errors_name_line_and_column() {
    #[rustfmt::skip]
    let cases = [
        ("", "gbnf: a grammar must have a rule `root`, found none"),
        ("a ::= \"b\"", "gbnf: a grammar must have a rule `root`, found none"),
        ("root ::= a", "gbnf: line 1, column 10: rule `a` is not defined"),
        ("root ::= \"a\"\n\nroot ::= \"b\"", "gbnf: line 3, column 1: rule `root` is defined twice"),
        ("root = \"a\"", "gbnf: line 1, column 6: expected `::=` behind the name `root`, found '='"),
        ("root ::= \"a\"\n  é ::= \"b\"", "gbnf: line 2, column 3: expected the name of a rule (letters, digits and `-`), found 'é'"),
        ("root ::= \"a", "gbnf: line 1, column 10: the text does not end: expected `\"`"),
        ("root ::= \"é\" [a-", "gbnf: line 1, column 14: the class does not end: expected `]`"),
        ("root ::= []", "gbnf: line 1, column 10: the class is empty, so nothing matches"),
        ("root ::= [z-a]", "gbnf: line 1, column 11: the range 'z' to 'a' is empty"),
        ("root ::= \"\\q\"", "gbnf: line 1, column 11: an escape must be one of \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH"),
        ("root ::= \"\\u12\"", "gbnf: line 1, column 11: \\u must be followed by 4 hexadecimal digits"),
        ("root ::= \"\\uD800\"", "gbnf: line 1, column 11: U+D800 is not a character"),
        ("root ::= (\"a\"\n\"b\"", "gbnf: line 2, column 4: expected `)` for the `(` at line 1, column 10, found the end"),
        ("root ::= \"a\")", "gbnf: line 1, column 13: expected a new line, `|`, or something to match, found ')'"),
        ("root ::= *", "gbnf: line 1, column 10: nothing stands before what says how often"),
        ("root ::= \"a\"{2,1}", "gbnf: line 1, column 13: the second number must not be below the first"),
        ("root ::= \"a\"{x}", "gbnf: line 1, column 14: expected a number, found 'x'"),
        ("root ::= \"a\"{99999999999}", "gbnf: line 1, column 14: what is repeated must be so at most 10000 times"),
        ("root ::= <nothing>", "gbnf: line 1, column 10: <nothing> is not a token of the vocabulary"),
        ("root ::= root", "gbnf: line 1, column 1: a rule matches no text: each of its alternatives leads back to it"),
        ("root ::= \"a\" | b\nb ::= \"x\" b | c\nc ::= b+", "gbnf: line 1, column 16: a rule matches no text: each of its alternatives leads back to it"),
        ("root ::= !\"a\"", "gbnf: line 1, column 11: expected a token, such as <think> or <[1000]>, found '\"'"),
    ];
    for (source, expected) in cases {
        match tiny()[0].compile(&GrammarSource::Gbnf(source.to_owned())) {
            Err(Error::Grammar(found)) => assert_eq!(found, expected, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
    let out_of_range = tiny()[0].compile(&GrammarSource::Gbnf("root ::= <[99999999]>".to_owned()));
    assert!(matches!(out_of_range, Err(Error::Grammar(_))));
}
