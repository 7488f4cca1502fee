//! Chat formats: answers as models of each family write them, in pieces of any length, and hostile ones.

#![allow(clippy::print_stderr, reason = "says what was not tested")]

use std::time::{Duration, Instant};

use fastq_core::chat::{ChatDelta, ChatFormat, ChatParser, MAX_CALL, MAX_CALLS, Marker, Tool, read_tools};
use fastq_core::generate::chat_tokens;
use fastq_core::template::ChatTemplate;
use fastq_core::{Error, LoadOptions, Model, Never};
use serde_json::{Map, Value, json};

/// The format of a template and of a vocabulary that has `control` as control tokens and `plain` as others.
fn format(source: &str, control: &[&str], plain: &[&str]) -> ChatFormat {
    let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
    let token = |text: &str| {
        let found = control.iter().chain(plain).position(|token| *token == text)?;
        Some(Marker { id: 1000 + found as u32, control: found < control.len() })
    };
    ChatFormat::detect(Some(&template), &token, control.iter().map(|text| (*text).to_owned()).collect())
}

const BODY: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}CALL{{ c.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}";

/// A template with these markers that takes tools.
fn with(markers: &str) -> String {
    format!("{{{{ tools | tojson }}}}{BODY}{{{{ '{markers}' }}}}")
}

fn families() -> Vec<(&'static str, ChatFormat)> {
    let plain = |markers: &str| format(&with(markers), &[], &[]);
    vec![
        ("hermes", plain("<tool_call></tool_call><think>")),
        ("qwen-xml", plain("<tool_call><function=x><parameter=y><think>")),
        (
            "llama3",
            format(&with("<|start_header_id|>\"parameters\""), &["<|python_tag|>", "<|eot_id|>", "<|eom_id|>"], &[]),
        ),
        (
            "mistral",
            format(&with("[TOOL_CALLS]"), &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"], &[]),
        ),
        ("phi4", format(&with("<|tool|>"), &["<|tool_call|>", "<|/tool_call|>", "<|tool|>"], &[])),
        (
            "functiongemma",
            format(&with("<start_function_call>"), &[], &["<start_function_call>", "<end_function_call>", "<escape>"]),
        ),
        (
            "gemma4",
            format(
                &with("<|tool_call>call<tool_call|><|channel>thought<|\"|>"),
                &["<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>", "<|\"|>"],
                &[],
            ),
        ),
        (
            "gemma3",
            format(
                "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}",
                &["<start_of_turn>", "<end_of_turn>"],
                &[],
            ),
        ),
        ("lfm2", format(&with("<|tool_list_start|>"), &["<|tool_call_start|>", "<|tool_call_end|>"], &[])),
        (
            "granite",
            format(&with("<|tool_call|> Here is my thought process: "), &["<|tool_call|>", "<|start_of_role|>"], &[]),
        ),
        (
            "harmony",
            format(
                &with("<|channel|><|message|>"),
                &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"],
                &[],
            ),
        ),
        ("json", format("{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}", &["<|im_end|>"], &[])),
    ]
}

fn family(name: &str) -> ChatFormat {
    families().into_iter().find(|(known, _)| *known == name).unwrap().1
}

fn tools() -> Vec<Tool> {
    let tools = json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}}, "required": ["city"]}}},
        {"name": "now", "parameters": {"type": "object", "properties": {}}},
        {"name": "write_file", "parameters": {"type": "object", "properties": {
            "path": {"type": "string"}, "text": {"type": "string"}, "mode": {"type": ["integer", "null"]}, "options": {"type": "object"}}}},
    ]);
    read_tools(tools.as_array().unwrap()).unwrap()
}

/// What an answer says: reasoning, content, and name and arguments of its calls.
#[derive(Debug, PartialEq, Clone, Default)]
struct Said {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
    ids: Vec<String>,
}

fn gather(deltas: Vec<ChatDelta>, said: &mut Said) {
    for delta in deltas {
        match delta {
            ChatDelta::Content(text) => said.content.push_str(&text),
            ChatDelta::Reasoning(text) => said.reasoning.push_str(&text),
            ChatDelta::ToolCall { index, id, name } => {
                assert_eq!(index, said.calls.len());
                said.calls.push((name, String::new()));
                said.ids.push(id);
            }
            ChatDelta::Arguments { index, text } => {
                assert_eq!(index + 1, said.calls.len());
                assert!(!text.is_empty());
                said.calls[index].1.push_str(&text);
            }
        }
    }
}

fn read<'a>(mut parser: ChatParser, pieces: impl IntoIterator<Item = &'a str>) -> Said {
    let mut said = Said::default();
    for piece in pieces {
        gather(parser.push(piece), &mut said);
    }
    gather(parser.finish(), &mut said);
    assert!(parser.finish().is_empty());
    let message = parser.message();
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["content"].as_str().unwrap_or_default(), said.content);
    assert_eq!(message.get("reasoning_content").and_then(Value::as_str).unwrap_or_default(), said.reasoning);
    let calls: Vec<(String, String)> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let function = &call["function"];
            (function["name"].as_str().unwrap().to_owned(), function["arguments"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(calls, said.calls);
    said
}

/// Reads it as one piece, in two at every place, in three at many, and by characters.
fn every_split(parser: &ChatParser, answer: &str) -> Said {
    let whole = read(parser.clone(), [answer]);
    let places: Vec<usize> = answer.char_indices().map(|(at, _)| at).collect();
    for &at in &places {
        let (first, second) = answer.split_at(at);
        assert_eq!(read(parser.clone(), [first, second]), whole, "{first:?} {second:?}");
        for &end in places.iter().filter(|&&end| end > at).step_by(7) {
            assert_eq!(
                read(parser.clone(), [&answer[..at], &answer[at..end], &answer[end..]]),
                whole,
                "{at} {end} {answer:?}"
            );
        }
    }
    let characters: Vec<String> = answer.chars().map(String::from).collect();
    assert_eq!(read(parser.clone(), characters.iter().map(String::as_str)), whole, "{answer:?}");
    whole
}

/// family, prompt, answer, reasoning, content, calls (arguments as JSON, or `"cut: …"` for those that were cut off).
type Example =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const ROME: &str = r#"{"city": "Rome"}"#;

#[rustfmt::skip]
const EXAMPLES: &[Example] = &[
    // Hermes, Qwen2.5, Qwen3, SmolLM3.
    ("hermes", "", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>", "", "", &[("get_weather", ROME)]),
    ("hermes", "", "I look.\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", "", "I look.", &[("get_weather", ROME), ("now", "{}")]),
    ("hermes", "", "<think>\nHe asks for {Rome}.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>", "He asks for {Rome}.", "", &[("get_weather", ROME)]),
    ("hermes", "", "<think>\n\n</think>\n\nHello.\n", "", "Hello.\n", &[]),
    ("hermes", "<|im_start|>assistant\n<think>\n", "Hm.\n\nYes.</think>\n\n  code\n", "Hm.\n\nYes.", "  code\n", &[]),
    ("hermes", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "Hello, see <think>.", "", "Hello, see <think>.", &[]),
    ("hermes", "x<think>", "It goes on and <tool_call> is a tag", "It goes on and <tool_call> is a tag", "", &[]),
    ("hermes", "", r#"<tool_call>{"name": "write_file", "arguments": {"text": "a }\"{ ] \\ </tool_call> 日本 \u00e9 \ud83d\ude00", "options": {"a": [1, {"b": null}]}}}</tool_call> Done."#, "", "Done.", &[("write_file", r#"{"text": "a }\"{ ] \\ </tool_call> 日本 \u00e9 \ud83d\ude00", "options": {"a": [1, {"b": null}]}}"#)]),
    ("hermes", "", r#"<tool_call>{"arguments": {"city": "Rome"}, "name": "get_weather"}</tool_call>"#, "", "", &[("get_weather", ROME)]),
    ("hermes", "", r#"<tool_call>{"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}</tool_call>"#, "", "", &[("get_weather", ROME)]),
    ("hermes", "", r#"<tool_call>{"id": 3, "type": "function", "function": {"name": "now"}}</tool_call>"#, "", "", &[("now", "{}")]),
    ("hermes", "", r#"<tool_call>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Rome"}}]</tool_call>"#, "", "", &[("now", "{}"), ("get_weather", ROME)]),
    ("hermes", "", "<tool_call>{\"name\": \"write_file\", \"arguments\": {\"text\": \"two\nlines\"}}</tool_call>", "", "", &[("write_file", r#"{"text": "two\nlines"}"#)]),
    // The end tag is missing.
    ("hermes", "", "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}", "", "", &[("now", "{}"), ("now", "{}")]),
    // Not a call.
    ("hermes", "", "The tag <tool_call> opens it, <tool_calls> does not, < is a sign.", "", "The tag <tool_call> opens it, <tool_calls> does not, < is a sign.", &[]),
    ("hermes", "", "<tool_call>{\"nom\": <tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", "", "<tool_call>{\"nom\":", &[("now", "{}")]),
    ("hermes", "", "<tool_call>{\"name\": \"no such name\", \"arguments\": {}}</tool_call>", "", "<tool_call>{\"name\": \"no such name\", \"arguments\": {}}</tool_call>", &[]),
    // Cut off by max_tokens.
    ("hermes", "", "Well <tool_ca", "", "Well <tool_ca", &[]),
    ("hermes", "", "<tool_call>\n{\"name\": \"get_wea", "", "<tool_call>\n{\"name\": \"get_wea", &[]),
    ("hermes", "", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro", "", "", &[("get_weather", "cut: {\"city\": \"Ro")]),
    ("hermes", "", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_", "", "", &[("get_weather", ROME)]),
    ("hermes", "", "<think>\nSo he", "So he", "", &[]),
    ("hermes", "", "<think>\nSo he</thi", "So he</thi", "", &[]),
    // Not JSON to the end: what does not fit is content.
    ("hermes", "", "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": Rome}}</tool_call>", "", "Rome}}</tool_call>", &[("get_weather", "cut: {\"city\": ")]),
    // Qwen3-Coder, Qwen3.5.
    ("qwen-xml", "", "<tool_call>\n<function=write_file>\n<parameter=path>\n/tmp/a b\n</parameter>\n<parameter=text>\nif a < b:\n    </function>\n</parameter>\n<parameter=mode>\n420\n</parameter>\n</function>\n</tool_call>", "", "", &[("write_file", r#"{"path":"/tmp/a b","text":"if a < b:\n    </function>","mode":420}"#)]),
    ("qwen-xml", "", "<tool_call>\n<function=get_weather>\n<parameter=city>\n007\n</parameter>\n<parameter=tags>\n[\"a\", {\"b\": 1}]\n</parameter>\n<parameter=other>\n3.5\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>", "", "", &[("get_weather", r#"{"city":"007","tags":["a",{"b":1}],"other":3.5}"#), ("now", "{}")]),
    ("qwen-xml", "", "So:\n<function=write_file>\n<parameter=text>\n</parameter> is the end\n</parameter>\n<parameter=options>\n{\"a\": True}\n</parameter>\n</function>\n</tool_call>", "", "So:", &[("write_file", r#"{"text":"</parameter> is the end","options":"{\"a\": True}"}"#)]),
    ("qwen-xml", "", "<tool_call>\n<function=write_file>\n<parameter=text>\nhalf", "", "<tool_call>\n<function=write_file>\n<parameter=text>\nhalf", &[]),
    ("qwen-xml", "<think>\n", "why\n</think>\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>", "why", "", &[("now", "{}")]),
    // Llama 3.
    ("llama3", "", r#"{"name": "get_weather", "parameters": {"city": "Rome"}}"#, "", "", &[("get_weather", ROME)]),
    ("llama3", "", r#"<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}<|eom_id|>"#, "", "", &[("get_weather", ROME)]),
    ("llama3", "", r#"{"type": "function", "name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Rome"}}"#, "", "", &[("now", "{}"), ("get_weather", ROME)]),
    ("llama3", "", r#"<function=get_weather>{"city": "Rome"}</function>"#, "", "", &[("get_weather", ROME)]),
    ("llama3", "", r#"{"name": "Ada", "age": 36}"#, "", r#"{"name": "Ada", "age": 36}"#, &[]),
    ("llama3", "", r#"{"name": "Ada", "parameters": {}}"#, "", r#"{"name": "Ada", "parameters": {}}"#, &[]),
    ("llama3", "", r#"It is {"name": "now", "parameters": {}}"#, "", r#"It is {"name": "now", "parameters": {}}"#, &[]),
    ("llama3", "", "[a](b) and {c}<|eot_id|>", "", "[a](b) and {c}", &[]),
    ("llama3", "", "<|python_tag|>print(1)", "", "<|python_tag|>print(1)", &[]),
    ("llama3", "", "  {\"name\": \"n", "", "  {\"name\": \"n", &[]),
    // Mistral.
    ("mistral", "", r#"[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "D681PevKs"}, {"name": "now", "arguments": {}, "id": "abc"}]"#, "", "", &[("get_weather", ROME), ("now", "{}")]),
    ("mistral", "", r#"I look.[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}[TOOL_CALLS]now[ARGS]{}"#, "", "I look.", &[("get_weather", ROME), ("now", "{}")]),
    ("mistral", "", r#"[TOOL_CALLS]get_weather[CALL_ID]123456789[ARGS]{"city": "Rome"}"#, "", "", &[("get_weather", ROME)]),
    ("mistral", "", r#"[THINK]Rome[/THINK]Hello"#, "Rome", "Hello", &[]),
    ("mistral", "", r#"[TOOL_CALLS]get weather[ARGS]{}"#, "", r#"[TOOL_CALLS]get weather[ARGS]{}"#, &[]),
    // Phi 4 mini.
    ("phi4", "", r#"<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]<|/tool_call|>"#, "", "", &[("get_weather", ROME)]),
    ("phi4", "", r#"functools[{"name": "get_weather", "arguments": {"city": "Rome"}}]"#, "", "", &[("get_weather", ROME)]),
    ("phi4", "", "functools is a module", "", "functools is a module", &[]),
    // Gemma.
    ("functiongemma", "", "<start_function_call>call:write_file{path:<escape>a, {b}: c<escape>,mode:3,options:{x:[1,true,null],y:<escape><escape>},text:bare word}<end_function_call>", "", "", &[("write_file", r#"{"path":"a, {b}: c","mode":3,"options":{"x":[1,true,null],"y":""},"text":"bare word"}"#)]),
    ("functiongemma", "", "<start_function_call>call:now{}<end_function_call><start_function_call>call:get_weather{city:<escape>Rome<escape>}<end_function_call>", "", "", &[("now", "{}"), ("get_weather", r#"{"city":"Rome"}"#)]),
    ("functiongemma", "", "<start_function_call>call:now{a:<escape>b}", "", "<start_function_call>call:now{a:<escape>b}", &[]),
    ("functiongemma", "", "<start_function_call>now", "", "<start_function_call>now", &[]),
    ("gemma4", "", "<|channel>thought\nHm.<channel|><|tool_call>call:write_file{options:{<|\"|>a b<|\"|>:<|\"|>}<|\"|>}}<tool_call|>", "Hm.", "", &[("write_file", r#"{"options":{"a b":"}"}}"#)]),
    ("gemma3", "", "```json\n{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}\n```", "", "", &[("get_weather", ROME)]),
    ("gemma3", "", "```tool_code\nprint(get_weather(city='Rome'))\n```", "", "", &[("get_weather", r#"{"city":"Rome"}"#)]),
    ("gemma3", "", "```json\n{\"a\": 1}\n```\nis JSON", "", "```json\n{\"a\": 1}\n```\nis JSON", &[]),
    ("gemma3", "", "```tool_code\nprint('Rome')\n```", "", "```tool_code\nprint('Rome')\n```", &[]),
    // LFM2.
    ("lfm2", "", "<|tool_call_start|>[get_weather(city=\"Ro)me\", days=3, tags=['a', \"b\\n\\u00e9\", (1, -2.5e3), None]), now()]<|tool_call_end|>I look.", "", "I look.", &[("get_weather", r#"{"city":"Ro)me","days":3,"tags":["a","b\né",[1,-2500.0],null]}"#), ("now", "{}")]),
    ("lfm2", "", "<|tool_call_start|>[write_file(options={\"a\": {\"b\": True}}, text='it\\'s')]<|tool_call_end|>", "", "", &[("write_file", r#"{"options":{"a":{"b":true}},"text":"it's"}"#)]),
    ("lfm2", "", "<|tool_call_start|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}]<|tool_call_end|>", "", "", &[("get_weather", ROME)]),
    ("lfm2", "", "<|tool_call_start|>[get_weather(\"Rome\")]<|tool_call_end|>", "", "<|tool_call_start|>[get_weather(\"Rome\")]<|tool_call_end|>", &[]),
    // Granite.
    ("granite", "", r#"<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]"#, "", "", &[("get_weather", ROME)]),
    ("granite", "", "Here is my thought process:\nHm.\n\nHere is my response:\nYes.", "Hm.", "Yes.", &[]),
    ("granite", "", "Here is my thought.", "", "Here is my thought.", &[]),
    // gpt-oss.
    ("harmony", "<|start|>assistant", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>", "Hm.", "", &[("get_weather", ROME)]),
    ("harmony", "<|start|>assistant", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.\n\n- a<|return|>", "Hm.", "Yes.\n\n- a", &[]),
    ("harmony", "<|start|>assistant", " to=functions.now<|channel|>commentary json<|message|>{}<|call|>", "", "", &[("now", "{}")]),
    ("harmony", "<|start|>assistant<|channel|>final<|message|>", "Yes.", "", "Yes.", &[]),
    ("harmony", "<|start|>assistant", "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.now<|message|>{}<|call|>", "", "I look.", &[("now", "{}")]),
    ("harmony", "<|start|>assistant", "Hello.", "", "Hello.", &[]),
    ("harmony", "<|start|>assistant", "<|channel|>commentary to=python code<|message|>print(1)<|call|>", "", "print(1)", &[]),
    // Without a format.
    ("json", "", r#"{"name": "get_weather", "arguments": {"city": "Rome"}}"#, "", "", &[("get_weather", ROME)]),
    ("json", "", "{\"name\": \"now\", \"arguments\": {}}\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n", "", "", &[("now", "{}"), ("get_weather", ROME)]),
    ("json", "", r#"[{"name": "get_weather", "arguments": {"city": "Rome"}}]"#, "", "", &[("get_weather", ROME)]),
    ("json", "", r#"<tool_call>[{"name": "get_weather", "arguments": {"city": "Rome"}}]</tool_call>"#, "", "", &[("get_weather", ROME)]),
    ("json", "", "```json\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n```", "", "", &[("get_weather", ROME)]),
    ("json", "", "{\"name\": \"now\", \"arguments\": {}}\n{\"x\": 1}", "", "{\"x\": 1}", &[("now", "{}")]),
    ("json", "", "[1, 2, 3]", "", "[1, 2, 3]", &[]),
    ("json", "", " Yes. \n\nNo \n", "", " Yes. \n\nNo \n", &[]),
    ("json", "", "", "", "", &[]),
];

#[test]
fn families_are_found_by_template_or_vocabulary() {
    for (name, format) in families() {
        assert_eq!(format.name(), name);
    }
    let plain = "{{ messages[0].content }}";
    assert_eq!(format(plain, &[], &["<tool_call>", "</tool_call>"]).name(), "hermes");
    assert_eq!(format(plain, &["<|tool_call|>"], &[]).name(), "granite");
    assert_eq!(format(plain, &["<|tool_call|>", "<|/tool_call|>"], &[]).name(), "phi4");
    assert_eq!(format("{{ '<tool_call><arg_key>' }}", &[], &["<tool_call>", "</tool_call>"]).name(), "json");
    assert_eq!(ChatFormat::detect(None, &|_| None, Vec::new()).name(), "json");
    assert!(!format(plain, &[], &[]).reasons());
    assert!(format(plain, &[], &["<think>", "</think>"]).reasons());
}

#[test]
fn control_tokens_are_shown_where_the_format_needs_them() {
    let special: Vec<(&str, bool, bool)> =
        families().iter().map(|(name, format)| (*name, format.special(false), format.special(true))).collect();
    assert_eq!(
        special,
        [
            ("hermes", false, false),
            ("qwen-xml", false, false),
            ("llama3", false, true),
            ("mistral", true, true),
            ("phi4", false, true),
            ("functiongemma", false, false),
            ("gemma4", true, true),
            ("gemma3", false, false),
            ("lfm2", false, true),
            ("granite", false, true),
            ("harmony", true, true),
            ("json", false, false),
        ]
    );
}

#[test]
fn answers_of_every_family_in_every_split() {
    let (families, tools) = (families(), tools());
    for (name, prompt, answer, reasoning, content, calls) in EXAMPLES {
        let format = &families.iter().find(|(known, _)| known == name).unwrap().1;
        let parser = format.parser_for(prompt, &tools);
        let said = every_split(&parser, answer);
        let found: Vec<(&str, &str)> =
            said.calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
        let expected: Vec<(&str, &str)> = calls
            .iter()
            .map(|(name, arguments)| (*name, arguments.strip_prefix("cut: ").unwrap_or(arguments)))
            .collect();
        assert_eq!(
            (said.reasoning.as_str(), said.content.as_str(), found),
            (*reasoning, *content, expected),
            "{name}: {answer}"
        );
        for ((_, arguments), (_, expected)) in said.calls.iter().zip(*calls) {
            let object = serde_json::from_str::<Map<String, Value>>(arguments);
            assert_eq!(object.is_err(), expected.starts_with("cut: "), "{arguments}");
        }
    }
}

#[test]
fn without_tools_nothing_is_a_call() {
    for (name, prompt, answer, ..) in EXAMPLES.iter().filter(|(name, ..)| *name != "harmony") {
        let said = every_split(&family(name).parser(prompt, false), answer);
        assert_eq!(said.calls, []);
    }
    let answer = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call> \n";
    assert_eq!(read(family("hermes").parser("", false), [answer]).content, answer);
}

#[test]
fn arguments_come_while_they_are_written() {
    for (name, before) in [
        ("hermes", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "),
        ("llama3", "{\"name\": \"get_weather\", \"parameters\": "),
        ("mistral", "[TOOL_CALLS]get_weather[ARGS]"),
        ("phi4", "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": "),
        ("harmony", "<|channel|>commentary to=functions.get_weather<|message|>"),
    ] {
        let mut parser = family(name).parser("", true);
        assert_eq!(parser.push(before), [], "{name}");
        let deltas = parser.push("{\"city\"");
        let [ChatDelta::ToolCall { index: 0, name: called, .. }, ChatDelta::Arguments { index: 0, text }] = &deltas[..]
        else {
            panic!("{name}: {deltas:?}");
        };
        assert_eq!((called.as_str(), text.as_str()), ("get_weather", "{\"city\""));
        assert_eq!(parser.push(": \"R"), [ChatDelta::Arguments { index: 0, text: ": \"R".into() }]);
    }
}

#[test]
fn text_is_held_back_no_longer_than_it_may_be_a_marker() {
    let mut parser = family("hermes").parser("", true);
    assert_eq!(parser.push("Hello"), [ChatDelta::Content("Hello".into())]);
    assert_eq!(parser.push(" "), []);
    assert_eq!(parser.push("a<tool"), [ChatDelta::Content(" a".into())]);
    assert_eq!(parser.push("s> x"), [ChatDelta::Content("<tools> x".into())]);
    let mut parser = family("json").parser("", true);
    assert_eq!(parser.push("{\"name\": \"Ada\", "), []);
    assert_eq!(parser.push("\"age"), []);
    assert_eq!(parser.push("\""), [ChatDelta::Content("{\"name\": \"Ada\", \"age\"".into())]);
}

#[test]
fn ids_are_unique_and_repeatable() {
    let answer = "<tool_call>{\"name\": \"now\"}</tool_call><tool_call>{\"name\": \"now\"}</tool_call>";
    let ids = |prompt: &str| read(family("hermes").parser(prompt, true), [answer]).ids;
    let (first, second) = (ids("one prompt"), ids("another prompt"));
    assert_eq!(first, ids("one prompt"));
    let mut all: Vec<&String> = first.iter().chain(&second).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4);
    for id in all {
        let letters = id.strip_prefix("call_").unwrap();
        assert!(letters.len() == 24 && letters.chars().all(|letter| letter.is_ascii_alphanumeric()), "{id}");
    }
    let answer = r#"[TOOL_CALLS][{"name": "now", "id": "D681PevKs"}, {"name": "now", "id": "D681PevKs"}, {"name": "now", "id": "short"}]"#;
    let ids = read(family("mistral").parser("", true), [answer]).ids;
    assert_eq!(ids[0], "D681PevKs");
    assert!(ids[1] != ids[0] && ids[2] != ids[1]);
    assert!(ids.iter().all(|id| id.len() == 9 && id.chars().all(|letter| letter.is_ascii_alphanumeric())), "{ids:?}");
}

/// Nothing of these may take more than time in proportion to its length, and nothing may be lost.
#[test]
fn hostile_answers() {
    let many = 200_000;
    let floods: Vec<String> = vec![
        "{".repeat(many),
        "[".repeat(many),
        "\n".repeat(many),
        "<tool_call>".repeat(many / 11),
        "<tool_call>{\"name\":".repeat(many / 19),
        format!("<tool_call>{}", " ".repeat(many)),
        "<".repeat(many),
        "<tool_call>[".repeat(many / 12),
        "{\"name\":".repeat(many / 8),
        format!("<tool_call>{{\"name\": \"now\", \"arguments\": {}", "{\"a\":".repeat(many / 5)),
        format!("<tool_call>{{\"arguments\": {{\"a\": \"{}", "x".repeat(MAX_CALL + 1000)),
        "<|tool_call_start|>[".repeat(many / 20),
        format!("<|tool_call_start|>[{}", " {".repeat(many / 2)),
        format!("<|tool_call_start|>{}", "a".repeat(many)),
        format!("<start_function_call>call:now{{a:{}", "<escape>".repeat(many / 8)),
        format!("<start_function_call>{}", " ".repeat(many)),
        format!("<function=now>{}", "<parameter=a></parameter>".repeat(many / 25)),
        format!("<function=now><parameter=a>{}", "</parameter>".repeat(many / 12)),
        format!("<function=now><parameter=a></parameter>{}", " ".repeat(many)),
        "[TOOL_CALLS]a[ARGS]".repeat(many / 19),
        "<think>".repeat(many / 7),
        "<|channel|>".repeat(many / 11),
        "<|start|>assistant".repeat(many / 18),
        format!("<|channel|>{}", "a".repeat(many)),
        "```json".repeat(many / 7),
        ", ; ".repeat(many / 4),
        "<tool_call>{\"name\":\"a\"}".repeat(2 * MAX_CALLS),
        format!("<tool_call>[{}", "{\"name\":\"a\"},".repeat(2 * MAX_CALLS)),
    ];
    let tools = tools();
    for (name, format) in families() {
        for flood in &floods {
            let start = Instant::now();
            let mut parser = format.parser_for("", &tools);
            let mut said = Said::default();
            gather(parser.push(flood), &mut said);
            gather(parser.finish(), &mut said);
            assert!(start.elapsed() < Duration::from_secs(20), "{name}: {flood:.40} took {:?}", start.elapsed());
            assert!(said.calls.len() <= MAX_CALLS);
            let told = said.content.len()
                + said.reasoning.len()
                + said.calls.iter().map(|(_, arguments)| arguments.len()).sum::<usize>();
            // Names, markers and white space around calls are all that may be missing.
            if said.calls.is_empty() && name != "harmony" && !flood.contains("think") && !flood.contains("|>") {
                assert!(told + 300 >= flood.len(), "{name}: {flood:.40}: {told} of {}", flood.len());
            }
        }
    }
}

/// Pieces of the formats in any order: never a panic, and the same in every split.
#[test]
fn mixtures() {
    let parts = [
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        "[",
        "]",
        "\"name\": \"now\"",
        ", ",
        "\"arguments\": ",
        "{}",
        "\n",
        "<think>",
        "</think>",
        "text",
        "<function=now>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "now",
        "<|tool_call_start|>",
        "now()",
        "<|python_tag|>",
        "<|channel|>",
        "analysis",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        " to=functions.now",
        "call:now{",
        "<escape>",
        "<start_function_call>",
        "```json",
        "é",
        "\\",
        "\"",
        "  ",
    ];
    let (families, tools) = (families(), tools());
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..4000 {
        let (name, format) = &families[round % families.len()];
        let text: String = (0..1 + random(12)).map(|_| parts[random(parts.len())]).collect();
        let parser = format.parser_for(["", "<think>\n", "<|start|>assistant"][random(3)], &tools);
        let whole = read(parser.clone(), [text.as_str()]);
        let characters: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(read(parser.clone(), characters.iter().map(String::as_str)), whole, "{name}: {text:?}");
        let at =
            (0..=text.len()).filter(|&at| text.is_char_boundary(at)).nth(random(text.chars().count() + 1)).unwrap();
        assert_eq!(read(parser, [&text[..at], &text[at..]]), whole, "{name}: {text:?}");
    }
}

fn argument_error(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Argument(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tools_are_checked() {
    let long = "n".repeat(65);
    let mut deep = json!({});
    for _ in 0..60 {
        deep = json!({"properties": deep});
    }
    for (tools, expected) in [
        (json!(["now"]), "tools[0]: expected an object with a function, found a string"),
        (json!([{"name": "now"}, {"type": "retrieval"}]), "tools[1]: type must be \"function\", found \"retrieval\""),
        (json!([{"type": "function"}]), "tools[0]: name is missing"),
        (json!([{"type": "function", "function": 3}]), "tools[0]: function must be an object, found a number"),
        (json!([{"name": 3}]), "tools[0]: name must be a string, found a number"),
        (json!([{"name": ""}]), "tools[0]: name must be 1 to 64 letters, digits, '_', '.' or '-', found \"\""),
        (json!([{"name": "a b"}]), "tools[0]: name must be 1 to 64 letters, digits, '_', '.' or '-', found \"a b\""),
        (json!([{"name": long}]), "tools[0]: name must be 1 to 64 letters"),
        (json!([{"name": "now"}, {"name": "now"}]), "tools[1]: the name \"now\" comes twice"),
        (json!([{"name": "now", "parameters": []}]), "tools[0]: now: parameters must be a JSON schema, found a list"),
        (
            json!([{"name": "now", "parameters": {"type": "string"}}]),
            "tools[0]: now: parameters must have the type \"object\", found \"string\"",
        ),
        (
            json!([{"name": "now", "parameters": {"properties": []}}]),
            "tools[0]: now: parameters.properties must be an object",
        ),
        (
            json!([{"name": "now", "parameters": {"required": "a"}}]),
            "tools[0]: now: parameters.required must be a list of strings",
        ),
        (json!([{"name": "now", "description": 1}]), "tools[0]: now: description must be a string, found a number"),
        (json!([{"name": "now", "parameters": deep}]), "tools[0]: it must not nest deeper than 48"),
        (
            json!([{"name": "now", "description": "x".repeat(1 << 20)}]),
            "tools[0]: tools must have at most 1048576 bytes together",
        ),
        (Value::from(vec![json!({"name": "now"}); 129]), "tools must be at most 128, found 129"),
    ] {
        let found = argument_error(read_tools(tools.as_array().unwrap()));
        assert!(found.starts_with(expected), "{found} instead of {expected}");
    }
    let bare = read_tools(&[json!({"name": "a.b-c_1", "description": null, "strict": true})]).unwrap();
    assert_eq!(
        bare[0].definition,
        json!({"type": "function", "function": {"name": "a.b-c_1", "description": null, "strict": true}})
    );
}

/// The conversation as the template writes it.
fn rendered(source: &str, messages: &Value, tools: &[Tool]) -> String {
    let format = format(source, &[], &[]);
    let prepared = format.prepare(messages.as_array().unwrap(), tools).unwrap();
    let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
    template.render(&prepared.messages, prepared.tools.as_ref(), false, &Map::new()).unwrap()
}

fn conversation(content: Value) -> Value {
    json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ROME}},
            {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ])
}

#[test]
fn calls_of_a_conversation_reach_the_template_as_it_wants_them() {
    // As objects: most templates.
    let hermes = "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}{{ m.role }} {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}|{% endfor %}";
    assert_eq!(
        rendered(hermes, &conversation(Value::Null), &tools()),
        "get_weather now write_file user Hi|assistant <tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call><tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>|tool noon|tool sunny|"
    );
    // As text: DeepSeek.
    let text = "{{ tools }}{% for m in messages %}{{ m.role }} {{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}|{% endfor %}";
    assert_eq!(
        rendered(text, &conversation("So.".into()), &[]),
        "Noneuser Hi|assistant So.get_weather {\"city\":\"Rome\"}now {}|tool noon|tool sunny|"
    );
    // By name: Gemma.
    let named = "{{ tools }}{% for m in messages %}{% if m.role == 'tool' %}{{ m.name }}={{ m.content }}{% else %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endif %}|{% endfor %}";
    assert!(rendered(named, &conversation(Value::Null), &[]).ends_with("|now=noon|get_weather=sunny|"));
}

#[test]
fn a_template_without_tools_is_told_of_them_in_the_conversation() {
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let mut messages = conversation("So.".into());
    messages.as_array_mut().unwrap().push(json!({"role": "user", "content": "And?"}));
    let written = rendered(plain, &messages, &tools()[1..2]);
    assert_eq!(
        written,
        r#"system: You can use tools. Each of these lines describes one: its name, what it does, and the JSON schema of its arguments.
{"name":"now","description":"","parameters":{"type":"object","properties":{}}}

To use a tool, answer with a line of this form and nothing else:
{"name": "NAME", "arguments": {"ARGUMENT":"VALUE"}}
To use several, write a line for each. The results come in the next message. When no tool is needed, answer in words.
user: Hi
assistant: So.
{"name": "get_weather", "arguments": {"city":"Rome"}}
{"name": "now", "arguments": {}}
user: Result of now:
noon

Result of get_weather:
sunny

And?
"#
    );
    // Behind what the system message says, and without a system message where the template refuses it.
    let system = json!([{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]);
    assert!(rendered(plain, &system, &tools()).starts_with("system: Be terse.\n\nYou can use tools."));
    let refuses = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let written = rendered(refuses, &json!([{"role": "user", "content": "Hi"}]), &tools());
    assert!(
        written.starts_with("user: You can use tools.") && written.ends_with("answer in words.\n\nHi\n"),
        "{written}"
    );
    // Markers that the vocabulary knows.
    let known = format(plain, &[], &["<tool_call>", "</tool_call>"]);
    let prepared = known.prepare(&[json!({"role": "user", "content": "Hi"})], &tools()).unwrap();
    assert!(
        prepared.messages[0]["content"]
            .as_str()
            .unwrap()
            .contains("\n<tool_call>{\"name\": \"NAME\", \"arguments\": {\"ARGUMENT\":\"VALUE\"}}</tool_call>\n")
    );
    assert_eq!(prepared.tools, None);
    // Phi-4-mini takes them in the system message.
    let phi = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if 'tools' in m %}<|tool|>{{ m['tools'] }}<|/tool|>{% endif %}|{% endfor %}";
    assert_eq!(
        rendered(phi, &json!([{"role": "user", "content": "Hi"}]), &tools()[1..2]),
        "system: <|tool|>[{\"name\":\"now\",\"description\":\"\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}]<|/tool|>|user: Hi|"
    );
}

#[test]
fn content_comes_as_the_template_takes_it() {
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"role": "developer", "content": "c"}]);
    let plain = "{% for m in messages %}{{ m.role }} {{ m.content }}|{% endfor %}";
    assert_eq!(rendered(plain, &parts, &[]), "user a\nb|system c|");
    let both = "{% for m in messages %}{{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'text' %}[{{ p.text }}]{% endif %}{% endfor %}{% endif %}|{% endfor %}developer";
    assert_eq!(rendered(both, &parts, &[]), "user [a][b]|developer c|developer");
    let only = "{% for m in messages %}{% for p in m.content %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}|{% endfor %}";
    assert_eq!(rendered(only, &json!([{"role": "user", "content": "Hi"}]), &[]), "Hi|");
    let thinking = "{% for m in messages %}{{ m.thinking }} {{ m.content }}|{% endfor %}";
    assert_eq!(
        rendered(thinking, &json!([{"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}]), &[]),
        "Hm Hi|"
    );
}

#[test]
fn messages_are_checked() {
    let format = format("{{ messages }}", &[], &[]);
    for (message, expected) in [
        (json!("Hi"), "messages[0]: expected an object with role and content, found a string"),
        (
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}),
            "messages[0].content[1]: expected {\"type\": \"text\", \"text\": …}, found the type \"image_url\"; this model takes text only",
        ),
        (json!({"role": "assistant", "tool_calls": 3}), "messages[0].tool_calls: expected a list, found a number"),
        (
            json!({"role": "assistant", "tool_calls": [{"function": {}}]}),
            "messages[0].tool_calls[0]: function.name must be a string",
        ),
        (
            json!({"role": "assistant", "tool_calls": [1]}),
            "messages[0].tool_calls[0]: expected an object with a function, found a number",
        ),
    ] {
        assert_eq!(argument_error(format.prepare(&[message], &[])), expected);
    }
}

/// The template of SmolLM2 has no tools: the conversation tells of them, once, and the format is the one told.
#[test]
fn a_real_model_is_told_of_tools() {
    let Some(folder) = std::env::var_os("FASTQ_MODELS").map(std::path::PathBuf::from) else {
        eprintln!("SKIPPED: FASTQ_MODELS must name a folder with smollm2.gguf");
        return;
    };
    let options = LoadOptions { context: Some(512), ..LoadOptions::default() };
    let model = Model::load(&folder.join("smollm2.gguf"), &options, &Never).unwrap();
    let format = ChatFormat::of(&model);
    assert_eq!((format.name(), format.special(true), format.reasons()), ("json", false, false));

    let messages = [json!({"role": "user", "content": [{"type": "text", "text": "What time is it?"}]})];
    let tools = json!([{"name": "now", "description": "The time"}]);
    let tokens = chat_tokens(&model, &messages, Some(&tools), &Map::new(), &Never).unwrap();
    let text = model.tokenizer().decode(&tokens, true).unwrap();
    assert!(text.starts_with("<|im_start|>system\nYou can use tools."), "{text}");
    assert!(text.contains("\n{\"name\": \"NAME\", \"arguments\": {\"ARGUMENT\":\"VALUE\"}}\n"), "{text}");
    assert!(text.ends_with("<|im_start|>user\nWhat time is it?<|im_end|>\n<|im_start|>assistant\n"), "{text}");
    assert_eq!(text.matches("You can use tools.").count(), 1);
    let read = read_tools(tools.as_array().unwrap()).unwrap();
    let mut parser = format.parser_after(&model, &tokens, &read).unwrap();
    parser.push("{\"name\": \"now\", \"arguments\": {}}");
    parser.finish();
    assert_eq!(parser.message()["tool_calls"][0]["function"], json!({"name": "now", "arguments": "{}"}));
    assert!(matches!(chat_tokens(&model, &messages, Some(&json!({})), &Map::new(), &Never), Err(Error::Argument(_))));

    // Without tools it is what the template makes of the messages.
    let plain = [json!({"role": "user", "content": "What time is it?"})];
    let rendered = model.template().unwrap().render(&plain, None, true, &Map::new()).unwrap();
    let tokens = chat_tokens(&model, &messages, None, &Map::new(), &Never).unwrap();
    assert_eq!(model.tokenizer().decode(&tokens, true).unwrap(), rendered);
}
