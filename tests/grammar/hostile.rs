//! Hostile sources: an error or a grammar that works, in bounded time and memory, never a panic, a hang or an abort.

use std::time::{Duration, Instant};

use fastq_core::Error;
use fastq_core::grammar::GrammarSource;
use serde_json::{Value, json};

use super::support::{Random, draw, reals, tiny};

/// Far above what is needed, for slow and busy machines; a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// MiB of the whole process, vocabularies and other tests included.
const MEMORY: u64 = 3_000;

fn nested(depth: usize, inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(inner, |value, _| wrap(value))
}

fn schemas() -> Vec<(&'static str, Value)> {
    let properties =
        |count: usize| (0..count).map(|id| (format!("p{id}"), json!({ "type": "string" }))).collect::<Value>();
    let doubling = |depth: usize| {
        let level = |id: usize| match id {
            0 => json!({ "type": "integer" }),
            id => {
                json!({ "type": "array", "prefixItems": [{ "$ref": format!("#/$defs/{}", id - 1) }, { "$ref": format!("#/$defs/{}", id - 1) }] })
            }
        };
        let definitions: Value = (0..=depth).map(|id| (id.to_string(), level(id))).collect();
        json!({ "$ref": format!("#/$defs/{depth}"), "$defs": definitions })
    };
    vec![
        // `json!` would copy by recursion.
        ("arrays in arrays", nested(20_000, json!({}), |value| Value::from_iter([("items".to_owned(), value)]))),
        ("arrays in arrays, allowed", nested(60, json!({}), |value| json!({ "items": value }))),
        (
            "any of any of",
            nested(60, json!({ "type": "null" }), |value| json!({ "anyOf": [value, { "type": "string" }] })),
        ),
        (
            "all of doubled",
            nested(14, json!({ "properties": { "a": {} } }), |value| json!({ "allOf": [value.clone(), value] })),
        ),
        ("any of any of, intersected", {
            let options: Vec<Value> =
                (0..40).map(|id| json!({ "type": "object", "properties": { id.to_string(): {} } })).collect();
            json!({ "allOf": vec![json!({ "anyOf": options }); 6] })
        }),
        ("many properties", json!({ "type": "object", "properties": properties(1_000) })),
        ("too many properties", json!({ "type": "object", "properties": properties(20_000) })),
        (
            "many required",
            json!({ "type": "object", "required": (0..1_000).map(|id| id.to_string()).collect::<Vec<_>>() }),
        ),
        ("large enum", json!({ "enum": (0..50_000).map(|id| format!("value {id}")).collect::<Vec<_>>() })),
        ("enum of objects", json!({ "enum": (0..2_000).map(|id| json!({ "a": id, "b": [id] })).collect::<Vec<_>>() })),
        (
            "huge counts",
            json!({ "type": "array", "minItems": 1_000_000, "items": { "type": "string", "minLength": 1_000_000 } }),
        ),
        (
            "huge range",
            json!({ "type": "array", "maxItems": 1_000_000, "items": { "type": "array", "maxItems": 999_999 } }),
        ),
        ("pattern of patterns", json!({ "type": "string", "pattern": "^((a{1000}){1000}){1000}$" })),
        ("pattern and length", json!({ "type": "string", "pattern": "(a|b)*a(a|b){30}", "maxLength": 100_000 })),
        ("pattern exponential", json!({ "type": "string", "pattern": "(x+x+)+y" })),
        (
            "patterns intersected",
            json!({ "allOf": (2..40).map(|id| json!({ "type": "string", "pattern": format!("^(.{{{id}}})*$") })).collect::<Vec<_>>() }),
        ),
        (
            "patterns intersected, allowed",
            json!({ "allOf": (2..10).map(|id| json!({ "type": "string", "pattern": format!("^(.{{{id}}})*$") })).collect::<Vec<_>>() }),
        ),
        ("multiples", json!({ "allOf": [{ "type": "integer", "multipleOf": 999_983 }, { "multipleOf": 999_979 }] })),
        ("small multiple", json!({ "type": "number", "multipleOf": 1e-300 })),
        ("large bounds", json!({ "type": "number", "minimum": -1e308, "maximum": 1e308 })),
        ("tiny bounds", json!({ "type": "number", "minimum": 1e-300, "maximum": 2e-300 })),
        ("doubling references", doubling(40)),
        (
            "cycle",
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "allOf": [{ "$ref": "#/$defs/a" }] } } }),
        ),
        (
            "cycle with siblings",
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "object", "$ref": "#/$defs/a" } } }),
        ),
        ("root in itself", json!({ "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] })),
        (
            "many pattern properties",
            json!({ "patternProperties": (0..300).map(|id| (format!("^{id}x"), json!({}))).collect::<Value>() }),
        ),
        ("one of many", json!({ "oneOf": (0..5_000).map(|id| json!({ "const": id })).collect::<Vec<_>>() })),
        (
            "pattern properties",
            json!({ "patternProperties": (10..42).map(|id| (format!("^{id}x.*y{id}"), json!({}))).collect::<Value>() }),
        ),
        ("long text", json!({ "const": "x".repeat(2 << 20) })),
        ("long description", json!({ "description": "x".repeat(900_000), "const": "a".repeat(8_192) })),
    ]
}

fn texts() -> Vec<(&'static str, GrammarSource)> {
    let regex = |text: &str| GrammarSource::Regex(text.to_owned());
    let alternatives = (0..100_000).map(|id| format!("word{id}")).collect::<Vec<_>>();
    let gbnf = |text: String| GrammarSource::Gbnf(text);
    let doubling: String = (1..60).map(|id| format!("r{id} ::= r{} r{}\n", id - 1, id - 1)).collect();
    vec![
        ("repeated repetition", regex("(a{1000}){1000}")),
        ("three times", regex("((a{1000}){1000}){1000}")),
        ("optional repetition", regex("(((a{0,1000}){0,1000}){0,1000}b)*")),
        ("alternatives", regex(&alternatives.join("|"))),
        ("nested groups", regex(&("(".repeat(50_000) + &")".repeat(50_000)))),
        ("nested repetition", regex(&("(?:".repeat(90) + "a" + &")*".repeat(90)))),
        ("classes", regex(&r"\w".repeat(100_000))),
        ("counted classes", regex(r"(\w{100,200}\s){100,200}")),
        ("exponential", regex(r"(a|b)*a(a|b){200}")),
        ("determinization", regex(r"(.*a.{20}){5}")),
        ("long text", regex(&"a".repeat(1 << 20))),
        ("long text, allowed", regex(&"a".repeat(1 << 13))),
        ("long repetition", regex("a{65000}")),
        ("lark, repetition", GrammarSource::Lark("start: /((a{1000}){1000}){1000}/".into())),
        ("lark, text", GrammarSource::Lark(format!("start: \"{}\"", "a".repeat(100_000)))),
        ("too long text", regex(&"a".repeat((1 << 20) + 1))),
        ("optional letters", regex(&"a?".repeat(5_000))),
        ("choices", GrammarSource::Choices((0..10_000).map(|id| format!("{id} {}", "x".repeat(id % 90))).collect())),
        ("long choices", GrammarSource::Choices((0..100).map(|id| "x".repeat(8_000 + id)).collect())),
        ("doubling rules", gbnf(format!("root ::= r59\nr0 ::= \"a\"?\n{doubling}"))),
        ("ambiguous", gbnf("root ::= root root | \"a\" | \"\"".into())),
        ("ambiguous lists", gbnf("root ::= (a | b)*\na ::= \"x\" root?\nb ::= \"x\" root? \"x\"?".into())),
        (
            "many rules",
            gbnf(
                (0..19_000).map(|id| format!("r{id} ::= \"a\" r{}\n", id + 1)).collect::<String>()
                    + "r19000 ::= \"b\"\nroot ::= r0",
            ),
        ),
        ("too many rules", gbnf((0..50_000).map(|id| format!("r{id} ::= \"a\"\n")).collect::<String>())),
        (
            "recursive rules",
            gbnf(
                (0..9_000).map(|id| format!("r{id} ::= \"a\" r{} | root\n", id + 1)).collect::<String>()
                    + "r9000 ::= \"b\"\nroot ::= r0",
            ),
        ),
        ("nested groups", gbnf("root ::= ".to_owned() + &"(".repeat(100_000))),
        ("nested groups, allowed", gbnf("root ::= ".to_owned() + &"(".repeat(100) + "\"a\"" + &")*".repeat(100))),
        ("repetition", gbnf("root ::= (((\"a\"{10000}){10000}){10000}){10000} root?".into())),
        ("repetition of rules", gbnf("root ::= \"(\" (root{0,10000} \",\"){0,10000} \")\"".into())),
        (
            "classes",
            gbnf(format!(
                "root ::= [{}]",
                (0..40_000).filter_map(|id| char::from_u32(0x1000 + 2 * id)).collect::<String>()
            )),
        ),
        ("lark, nested", GrammarSource::Lark("start: ".to_owned() + &"(".repeat(100_000))),
        ("lark, imports", GrammarSource::Lark("%import common.NOTHING\nstart: NOTHING".into())),
        ("lark, itself", GrammarSource::Lark("start: start".into())),
        ("lark, json", GrammarSource::Lark("start: %json {\"x-guidance\": 3}".into())),
        ("lark, rules", GrammarSource::Lark("start: A\nA: B~1000\nB: C~1000\nC: \"ab\"~1000".into())),
        (
            "lark, intersections",
            GrammarSource::Lark(
                "start: A\nA: ".to_owned()
                    + &(2..40).map(|id| format!("/(.{{{id}}})*/")).collect::<Vec<_>>().join(" & "),
            ),
        ),
        ("lark, forced later", GrammarSource::Lark("start: /[0-9]/ A\nA: B~1000\nB: C~1000\nC: \"ab\"~1000".into())),
        ("lark, bytes", GrammarSource::Lark("start: <[99999999]>".into())),
        ("nothing", GrammarSource::Lark(String::new())),
        ("zero bytes", GrammarSource::Lark("\0\0".into())),
    ]
}

/// The most memory that the process had since it was asked last, in MiB, where the system tells it.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Compiles, and when that works, writes some tokens. The peak of memory is bounded where the system tells it.
#[allow(clippy::print_stdout, reason = "what each took is shown with --nocapture")]
fn survive(model: &super::support::Model, name: &str, source: &GrammarSource) {
    if std::env::var_os("FASTQ_HOSTILE").is_some_and(|only| only != name) {
        return;
    }
    peak();
    let start = Instant::now();
    let compiled = model.compile(source);
    let compiling = start.elapsed();
    let result = compiled.as_ref().map(drop).map_err(|error| error.to_string().chars().take(90).collect::<String>());
    match compiled {
        Err(Error::Grammar(what)) => assert!(what.len() < 4_000, "{name}: {} bytes of message", what.len()),
        Err(other) => panic!("{name}: {other:?}"),
        Ok(grammar) => {
            let mut random = Random(7);
            let mut matcher = grammar.matcher();
            for _ in 0..40 {
                let mut logits = vec![0.0f32; model.tokenizer.vocab_size()];
                match matcher.mask(&mut logits) {
                    Ok(()) => {}
                    Err(Error::Grammar(_)) => break,
                    Err(other) => panic!("{name}: {other:?}"),
                }
                let allowed: Vec<u32> =
                    (0..).zip(&logits).filter(|(_, logit)| **logit == 0.0).map(|(id, _)| id).collect();
                let token = *random.pick(&allowed);
                if matcher.accept(token).is_err() || matcher.finished() {
                    break;
                }
            }
        }
    }
    let took = start.elapsed();
    let peak = peak();
    assert!(peak < MEMORY, "{name} took {peak} MiB");
    println!("{peak:>6} MiB {took:>9.1?} {compiling:>9.1?} {} {name}: {result:?}", model.name);
    assert!(took < PATIENCE, "{name} took {took:?}");
}

#[test]
fn hostile_schemas_end() {
    for model in tiny()[..1].iter().chain(reals().last()) {
        for (name, schema) in schemas() {
            let source = GrammarSource::JsonSchema(schema);
            survive(model, name, &source);
            // What is nested this deep must not be dropped by recursion.
            if let GrammarSource::JsonSchema(schema) = source {
                flatten(schema);
            }
        }
    }
}

/// Drops a value without recursion.
fn flatten(value: Value) {
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => pending.extend(fields.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
}

#[test]
fn hostile_texts_end() {
    for model in tiny()[..1].iter().chain(reals().last()) {
        for (name, source) in texts() {
            survive(model, name, &source);
        }
    }
}

#[test]
fn random_bytes_are_no_grammar_or_one_that_works() {
    let pieces = [
        "root",
        "::=",
        "\n",
        " ",
        "\"",
        "a",
        "[",
        "]",
        "^",
        "-",
        "(",
        ")",
        "|",
        "*",
        "+",
        "?",
        "{",
        "}",
        "1",
        ",",
        "\\",
        "x",
        "#",
        ".",
        "start",
        ":",
        "/",
        "~",
        "%json",
        "é",
        "\0",
        "<",
        ">",
        "!",
        "root ::= ",
        "start: ",
    ];
    let model = &tiny()[1];
    for seed in 0..600 {
        let mut random = Random(seed);
        let text: String = (0..random.below(24)).map(|_| *random.pick(&pieces)).collect();
        let source = match seed % 3 {
            0 => GrammarSource::Gbnf(format!("root ::= {text}")),
            1 => GrammarSource::Regex(text),
            _ => GrammarSource::Lark(format!("start: {text}")),
        };
        match model.compile(&source) {
            Err(Error::Grammar(_)) => {}
            Err(other) => panic!("{source:?}: {other:?}"),
            Ok(grammar) => drop(draw_some(model, &grammar, seed)),
        }
    }
}

fn draw_some(model: &super::support::Model, grammar: &fastq_core::Grammar, seed: u64) -> String {
    draw(model, grammar, seed, 30).0
}
