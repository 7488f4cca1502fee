//! Grammars of tool calls, through llguidance: what they take and refuse, and that what they take is read as a call.

use std::sync::Arc;

use fastq_core::Error;
use fastq_core::chat::{ChatFormat, Marker, Tool, ToolChoice, read_tools};
use fastq_core::template::ChatTemplate;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

/// The end token; bytes come before it, control tokens after.
const END: u32 = 256;

struct Family {
    format: ChatFormat,
    control: Vec<&'static str>,
}

fn family(markers: &str, control: &[&'static str]) -> Family {
    let source = format!("{{{{ tools }}}}{{{{ '{markers}' }}}}");
    let template = ChatTemplate::new(&source, "", "").unwrap();
    let token = |text: &str| {
        let found = control.iter().position(|token| *token == text)?;
        Some(Marker { id: END + 1 + found as u32, control: true })
    };
    let format = ChatFormat::detect(Some(&template), &token, Vec::new());
    Family { format, control: control.to_vec() }
}

impl Family {
    /// Bytes, and control tokens where they stand.
    fn tokens(&self, text: &str) -> Vec<u32> {
        let (mut rest, mut tokens) = (text, Vec::new());
        while !rest.is_empty() {
            let control = self.control.iter().enumerate().find_map(|(at, token)| Some((at, rest.strip_prefix(token)?)));
            let (id, left) = match control {
                Some((at, left)) => (END + 1 + at as u32, left),
                None => {
                    tokens.extend(rest.bytes().take(rest.chars().next().unwrap().len_utf8() - 1).map(u32::from));
                    let length = rest.chars().next().unwrap().len_utf8();
                    (u32::from(rest.as_bytes()[length - 1]), &rest[length..])
                }
            };
            tokens.push(id);
            rest = left;
        }
        tokens
    }

    fn matcher(&self, prompt: &str, tools: &[Tool], choice: &ToolChoice) -> Matcher {
        let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let special = |text: &str| [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat();
        words.push(special("<end>"));
        words.extend(self.control.iter().map(|text| special(text)));
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, END), &words);
        let environment = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new(&(environment as _), InferenceCapabilities::default(), &[]).unwrap();
        let source = self.format.tool_lark(prompt, tools, choice).unwrap();
        let parser = factory.create_parser(TopLevelGrammar::from_lark(source.clone()));
        Matcher::new(Ok(parser.unwrap_or_else(|error| panic!("{error}\n{source}"))))
    }

    /// How many bytes of an answer the grammar takes, all of them and the end included: `None`.
    fn refused(&self, prompt: &str, tools: &[Tool], choice: &ToolChoice, answer: &str) -> Option<usize> {
        let mut matcher = self.matcher(prompt, tools, choice);
        for (at, token) in self.tokens(answer).into_iter().chain([END]).enumerate() {
            let mask = matcher.compute_mask_or_eos().unwrap();
            if !mask.is_allowed(token) {
                return Some(at);
            }
            if token != END {
                matcher.consume_token(token).unwrap();
            }
        }
        None
    }
}

fn tools() -> Vec<Tool> {
    let tools = json!([
        {"name": "get_weather", "parameters": {"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}, "required": ["city"]}},
        {"name": "now"},
        {"name": "draw", "parameters": {"type": "object", "properties": {
            "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}}, "fill": {"type": "boolean"}},
            "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": false}}}},
    ]);
    read_tools(tools.as_array().unwrap()).unwrap()
}

fn families() -> Vec<(&'static str, Family)> {
    vec![
        ("hermes", family("<tool_call>", &[])),
        ("hermes", family("<tool_call></think>", &["<tool_call>", "</tool_call>", "<think>", "</think>"])),
        ("qwen-xml", family("<function=<parameter=<tool_call>", &[])),
        ("llama3", family("<|start_header_id|>\"parameters\"", &["<|python_tag|>"])),
        ("mistral", family("[TOOL_CALLS]", &["[TOOL_CALLS]"])),
        ("mistral", family("[TOOL_CALLS][ARGS]", &["[TOOL_CALLS]", "[ARGS]"])),
        ("phi4", family("<|tool|>", &["<|tool_call|>", "<|/tool_call|>"])),
        ("granite", family("<|tool_call|>", &["<|tool_call|>"])),
        ("lfm2", family("<|tool_call_start|>", &["<|tool_call_start|>", "<|tool_call_end|>"])),
        ("functiongemma", family("<start_function_call>", &["<start_function_call>", "<end_function_call>"])),
        (
            "gemma4",
            family(
                "<|tool_call><tool_call|><|channel>thought",
                &["<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>", "<|\"|>"],
            ),
        ),
        (
            "harmony",
            family(
                "<|channel|><|message|>",
                &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>"],
            ),
        ),
        ("gemma3", family("<start_of_turn>", &[])),
        ("json", family("", &[])),
    ]
}

/// A call of `get_weather` and one of `now` in the main form of each of [`families`], and one of `get_weather` with a number as city.
#[rustfmt::skip]
const CALLS: [[&str; 3]; 14] = [
    [
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
    [
        "<think>\nSo <b>.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
    [
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nRo}me\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=days>",
    ],
    [
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Ro}me\", \"days\": 3}}",
        "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}",
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": 3",
    ],
    [
        "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}, \"id\": \"abcdefghi\"}]",
        "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}, \"id\": \"abcdefghi\"}]",
        "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
    [
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Ro}me\", \"days\": 3}",
        "[TOOL_CALLS]now[ARGS]{}",
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": 3",
    ],
    [
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}}]<|/tool_call|>",
        "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|>",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
    [
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}}]",
        "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
    [
        "<|tool_call_start|>[get_weather(city=\"Ro}me\", days=3)]<|tool_call_end|>",
        "<|tool_call_start|>[now()]<|tool_call_end|>",
        "<|tool_call_start|>[get_weather(city=3",
    ],
    [
        "<start_function_call>call:get_weather{city:<escape>Ro}me<escape>,days:3}<end_function_call>",
        "<start_function_call>call:now{}<end_function_call>",
        "<start_function_call>call:get_weather{city:3",
    ],
    [
        "<|channel>thought\nSo.<channel|><|tool_call>call:get_weather{city:<|\"|>Ro}me<|\"|>,days:3}<tool_call|>",
        "<|tool_call>call:now{}<tool_call|>",
        "<|tool_call>call:get_weather{city:3",
    ],
    [
        "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Ro}me\", \"days\": 3}",
        "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}",
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": 3",
    ],
    [
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Ro}me\", \"days\": 3}}",
        "{\"name\": \"now\", \"parameters\": {}}",
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": 3",
    ],
    [
        "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro}me\", \"days\": 3}}",
        "{\"name\": \"now\", \"arguments\": {}}",
        "{\"name\": \"get_weather\", \"arguments\": {\"city\": 3",
    ],
];

/// Names and arguments that the parser finds.
fn calls(family: &Family, prompt: &str, answer: &str) -> Vec<(String, Value)> {
    let mut parser = family.format.parser_for(prompt, &tools());
    parser.push(answer);
    parser.finish();
    let message = parser.message();
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    calls
        .map(|call| {
            let function = &call["function"];
            let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
            (function["name"].as_str().unwrap().to_owned(), arguments)
        })
        .collect()
}

#[test]
fn calls_of_every_family() {
    let tools = tools();
    for ((name, family), [weather, now, wrong]) in families().into_iter().zip(CALLS) {
        assert_eq!(family.format.name(), name);
        let prompt = if name == "harmony" { "<|start|>assistant" } else { "" };
        let refused = |choice: &ToolChoice, answer: &str| family.refused(prompt, &tools, choice, answer);
        let named = |name: &str| ToolChoice::Named(name.to_owned());
        assert_eq!(
            calls(&family, prompt, weather),
            [("get_weather".to_owned(), json!({"city": "Ro}me", "days": 3}))],
            "{name}"
        );
        assert_eq!(calls(&family, prompt, now), [("now".to_owned(), json!({}))], "{name}");
        for choice in [ToolChoice::Auto, ToolChoice::Required] {
            assert_eq!(refused(&choice, weather), None, "{name} {choice:?} {weather}");
            assert_eq!(refused(&choice, now), None, "{name} {choice:?} {now}");
            assert!(
                refused(&choice, wrong).is_some_and(|at| at + 1 >= family.tokens(wrong).len() - 12),
                "{name} {choice:?} {wrong}"
            );
        }
        assert_eq!(refused(&named("now"), now), None, "{name}");
        assert!(refused(&named("now"), weather).is_some_and(|at| at < family.tokens(weather).len()), "{name}");
        assert_eq!(refused(&named("get_weather"), weather), None, "{name}");
        // Words: only where the model may choose.
        let words = if name == "harmony" { "<|channel|>final<|message|>It is {sunny}.\n" } else { "It is {sunny}.\n" };
        assert_eq!(refused(&ToolChoice::Auto, words), None, "{name}");
        assert_eq!(refused(&ToolChoice::None, words), None, "{name}");
        assert!(refused(&ToolChoice::Required, words).is_some(), "{name}");
        assert!(refused(&named("now"), words).is_some(), "{name}");
    }
}

#[test]
fn words_before_calls_and_several_calls() {
    let tools = tools();
    for (index, (name, family)) in families().into_iter().enumerate() {
        if !matches!(name, "hermes" | "qwen-xml" | "lfm2" | "functiongemma") {
            continue;
        }
        let now = CALLS[index][1];
        let answer = format!("I look.\n{now}\n{now}");
        assert_eq!(family.refused("", &tools, &ToolChoice::Auto, &answer), None, "{name}");
        assert_eq!(calls(&family, "", &answer).len(), 2);
        let two = format!("{now}\n{now}");
        assert_eq!(family.refused("", &tools, &ToolChoice::Required, &two), None, "{name}");
        let once = ToolChoice::Named("now".into());
        assert_eq!(family.refused("", &tools, &once, &two), Some(family.tokens(now).len()), "{name}");
    }
}

#[test]
fn optional_arguments_and_references() {
    let tools = tools();
    for (index, answers) in [
        (
            0,
            vec![
                "<tool_call>\n{\"name\": \"draw\", \"arguments\": {\"points\": [{\"x\": 1.5}], \"fill\": true}}\n</tool_call>",
                "<tool_call>\n{\"name\": \"draw\", \"arguments\": {\"fill\": true}}\n</tool_call>",
            ],
        ),
        (
            2,
            vec![
                "<tool_call>\n<function=draw>\n<parameter=points>\n[{\"x\": 1.5}]\n</parameter>\n</function>\n</tool_call>",
                "<tool_call>\n<function=get_weather>\n<parameter=city>\na\n</parameter>\n<parameter=unit>\nC\n</parameter>\n</function>\n</tool_call>",
            ],
        ),
        (
            8,
            vec![
                "<|tool_call_start|>[draw(points=[{\"x\": 1.5}], fill=true), draw(fill=false), draw(), get_weather(city=\"a\", unit=\"F\")]<|tool_call_end|>",
            ],
        ),
        (
            9,
            vec![
                "<start_function_call>call:draw{fill:true}<end_function_call>",
                "<start_function_call>call:get_weather{city:<escape>a<escape>,unit:<escape>F<escape>}<end_function_call>",
            ],
        ),
    ] {
        let (name, family) = &families()[index];
        for answer in answers {
            assert_eq!(family.refused("", &tools, &ToolChoice::Required, answer), None, "{name} {answer}");
            assert!(!calls(family, "", answer).is_empty(), "{name} {answer}");
        }
    }
    let (_, hermes) = &families()[0];
    let wrong = "<tool_call>\n{\"name\": \"draw\", \"arguments\": {\"points\": [{\"x\": \"a\"";
    assert!(hermes.refused("", &tools, &ToolChoice::Required, wrong).is_some_and(|at| at < wrong.len() - 2));
}

#[test]
fn reasoning_that_the_prompt_began() {
    let (_, family) = &families()[1];
    let now = CALLS[1][1];
    let tools = tools();
    let required = ToolChoice::Required;
    assert_eq!(family.refused("x<think>\n", &tools, &required, &format!("Hm.\n</think>\n\n{now}")), None);
    assert_eq!(family.refused("x<think>\n", &tools, &required, now), Some(0), "it thinks first");
    assert_eq!(family.refused("x<think>\n\n</think>\n\n", &tools, &required, now), None);
    assert!(family.refused("x<think>\n\n</think>\n\n", &tools, &required, "<think>").is_some());
}

#[test]
fn choices_are_checked() {
    let (_, family) = &families()[0];
    let message = |tools: &[Tool], choice: ToolChoice| match family.format.tool_lark("", tools, &choice) {
        Err(Error::Argument(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        message(&tools(), ToolChoice::Named("no".into())),
        "tool_choice names \"no\", which is not among the tools"
    );
    assert_eq!(message(&[], ToolChoice::Required), "tool_choice \"required\" needs tools, found none");
}
