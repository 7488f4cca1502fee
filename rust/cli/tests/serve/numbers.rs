//! Every numeric field of every endpoint with values that are none, too large, or of another type.

use serde_json::{Value, json};

use crate::client::Server;
use fastq_cli::serve::ServeOptions;

/// What each field is given, as JSON text: -1, 0, 2^31, 2^63, what Python and JavaScript write for no number, and other types.
const VALUES: [&str; 10] =
    ["-1", "0", "2147483648", "9223372036854775808", "NaN", "1e308", "1e999", "\"x\"", "null", "0.5"];

/// A field, and which of [`VALUES`] it accepts beside `null`, which is its default (OpenAI).
type Field = (&'static str, &'static [&'static str]);

/// Fields that say how tokens are chosen. Zero is meaningful in all of them: greedy, off, or the one most likely token.
const SAMPLING: [Field; 9] = [
    ("temperature", &["0", "0.5"]),
    ("top_p", &["0", "0.5"]),
    ("min_p", &["0", "0.5"]),
    ("typical_p", &["0", "0.5"]),
    ("top_k", &["0"]),
    ("repeat_last_n", &["0"]),
    // A penalty below zero is an encouragement.
    ("presence_penalty", &["-1", "0", "0.5"]),
    ("frequency_penalty", &["-1", "0", "0.5"]),
    // Seeds have 63 bits.
    ("seed", &["0", "2147483648"]),
];

/// No divisor may be zero.
const PENALTY: Field = ("repeat_penalty", &["0.5"]);

fn endpoints() -> Vec<(&'static str, Value, Vec<Field>)> {
    let sampling = |more: &[Field]| [&SAMPLING[..], &[PENALTY], more].concat();
    let chat = sampling(&[("max_tokens", &[]), ("max_completion_tokens", &[]), ("n", &[]), ("top_logprobs", &[])]);
    // Nothing to write: the usage tells the length of the prompt.
    let text = sampling(&[("max_tokens", &["0"]), ("n", &[]), ("best_of", &[]), ("logprobs", &["0"])]);
    let responses = sampling(&[("max_output_tokens", &[])]);
    vec![
        ("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "a" }] }), chat),
        ("/v1/completions", json!({ "prompt": "a", "max_tokens": 1 }), text),
        ("/v1/responses", json!({ "input": "a" }), responses),
        ("/v1/embeddings", json!({ "input": "a" }), vec![("dimensions", &[])]),
    ]
}

#[test]
fn every_number_is_checked_and_named() {
    let server = Server::new(ServeOptions::default());
    let mut checked = 0;
    for (path, body, fields) in endpoints() {
        for (field, accepted) in fields {
            for value in VALUES {
                let mut body = body.clone();
                // Short answers, unless their length is what is asked about.
                for length in ["max_tokens", "max_output_tokens"] {
                    let given = body[length].is_null()
                        && !path.contains("embed")
                        && (length == "max_tokens") != path.contains("responses");
                    if given && length != field {
                        body[length] = 1.into();
                    }
                }
                let text = {
                    body[field] = "@".into();
                    body.to_string().replace("\"@\"", value)
                };
                let response = server.request("POST", path, &[], text.as_bytes());
                if accepted.contains(&value) || value == "null" {
                    assert_eq!(response.status, 200, "{path} {field}={value}: {response:?}");
                } else {
                    assert_eq!(response.status, 400, "{path} {field}={value}: {response:?}");
                    let (message, param) = response.error();
                    assert_eq!(param.as_deref(), Some(field), "{path} {field}={value}: {message}");
                    assert!(message.contains(field), "{path} {field}={value}: {message}");
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, (14 + 14 + 11 + 1) * VALUES.len());
}

#[test]
fn numbers_in_tables_and_lists_are_checked() {
    let server = Server::new(ServeOptions::default());
    let wrong = |path: &str, body: Value, param: &str| {
        let response = server.post(path, &body);
        assert_eq!((response.status, response.error().1.as_deref()), (400, Some(param)), "{path} {body}: {response:?}");
    };
    let chat = "/v1/chat/completions";
    let messages = json!([{ "role": "user", "content": "a" }]);
    for bias in [json!(-100.5), json!(2147483648u64), json!(1e308), json!("x"), json!(null), json!([1])] {
        wrong(chat, json!({ "messages": messages, "logit_bias": { "5": bias } }), "logit_bias.5");
    }
    for token in ["-1", "286", "2147483648", "x", "", "5.0", "NaN"] {
        wrong(chat, json!({ "messages": messages, "logit_bias": { token: 1 } }), "logit_bias");
    }
    wrong(chat, json!({ "messages": messages, "logit_bias": [1] }), "logit_bias");
    for token in [json!(-1), json!(286), json!(1e308), json!(0.5), json!(null), json!("x")] {
        wrong("/v1/completions", json!({ "prompt": [1, token] }), "prompt");
        wrong("/v1/embeddings", json!({ "input": [[1, token]] }), "input[0]");
        wrong("/detokenize", json!({ "tokens": [token] }), "tokens");
    }
    let types: [(&str, Value, &str); 26] = [
        ("messages", json!("x"), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!(null), "messages"),
        ("messages", json!([5]), "messages[0]"),
        ("messages", json!([{ "content": "x" }]), "messages[0].role"),
        ("messages", json!([{ "role": "king", "content": "x" }]), "messages[0].role"),
        ("messages", json!([{ "role": "user" }]), "messages[0].content"),
        ("messages", json!([{ "role": "user", "content": 5 }]), "messages[0].content"),
        ("messages", json!([{ "role": "user", "content": [{ "type": "image_url" }] }]), "messages[0].content[0].type"),
        ("messages", json!([{ "role": "user", "content": [{ "type": "text" }] }]), "messages[0].content[0].text"),
        (
            "messages",
            json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "[" } }] }]),
            "messages[0].tool_calls[0].function.arguments",
        ),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({ "include_usage": 1 }), "stream_options.include_usage"),
        ("stop", json!([""]), "stop"),
        ("stop", json!(vec!["x"; 17]), "stop"),
        ("stop", json!(5), "stop"),
        ("model", json!(5), "model"),
        ("logprobs", json!(1), "logprobs"),
        ("tools", json!({}), "tools"),
        ("tools", json!([{ "type": "function", "function": { "name": "a b" } }]), "tools[0].function.name"),
        ("tools", json!([{ "type": "web_search" }]), "tools[0].type"),
        ("tool_choice", json!("maybe"), "tool_choice"),
        ("tool_choice", json!({ "type": "function", "function": { "name": "f" } }), "tool_choice"),
        ("response_format", json!("json"), "response_format"),
        ("response_format", json!({ "type": "xml" }), "response_format.type"),
        ("response_format", json!({ "type": "json_schema", "json_schema": {} }), "response_format.json_schema.schema"),
    ];
    for (field, value, param) in types {
        let mut body = json!({ "messages": messages });
        body[field] = value;
        wrong(chat, body, param);
    }
}
