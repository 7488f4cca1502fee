//! The server from outside: what endpoints answer, and what hostile clients come to.

#[path = "serve/client.rs"]
mod client;
#[path = "serve/hostile.rs"]
mod hostile;
#[path = "serve/numbers.rs"]
mod numbers;
#[cfg(unix)]
#[path = "serve/process.rs"]
mod process;
#[path = "../../../tests/common/tiny_model.rs"]
mod tiny_model;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Server;
use fastq_cli::serve::ServeOptions;
use serde_json::{Value, json};

fn chat(more: Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 12, "seed": 7, "temperature": 1.5, "ignore_eos": true,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_stream_has_the_parts_of_the_whole_answer() {
    let server = Server::new(ServeOptions::default());
    let whole = server.post("/v1/chat/completions", &chat(json!({ "n": 3 })));
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/json")), "{whole:?}");
    let whole = whole.json();
    assert_eq!((whole["object"].as_str(), whole["model"].as_str()), (Some("chat.completion"), Some("tiny")));
    // `<s>user:hi</s>assistant:`
    let usage = json!({
        "prompt_tokens": 19, "completion_tokens": 36, "total_tokens": 55, "prompt_tokens_details": { "cached_tokens": 0 },
    });
    assert_eq!(whole["usage"], usage);
    let texts: Vec<&str> = (0..3).map(|n| whole["choices"][n]["message"]["content"].as_str().unwrap()).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");

    let stream = chat(json!({ "n": 3, "stream": true, "stream_options": { "include_usage": true } }));
    let stream = server.post("/v1/chat/completions", &stream);
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    let mut events = stream.events();
    assert_eq!(events.pop(), Some("[DONE]".into()));
    let last = events.pop().unwrap();
    assert_eq!((&last["choices"], last["usage"]["total_tokens"].as_u64()), (&json!([]), Some(55)));
    for (index, text) in texts.iter().enumerate() {
        let choices: Vec<&Value> =
            events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index).collect();
        assert_eq!(choices[0]["delta"], json!({ "role": "assistant", "content": "" }));
        let joined: String = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(joined, *text);
        let reasons: Vec<&Value> =
            choices.iter().map(|choice| &choice["finish_reason"]).filter(|r| !r.is_null()).collect();
        assert_eq!(reasons, ["length"]);
    }
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["usage"].is_null()));
}

#[test]
fn stop_bias_and_seeds_do_what_they_say() {
    let server = Server::new(ServeOptions::default());
    let text = |more: Value| {
        let response = server.post("/v1/chat/completions", &chat(more));
        assert_eq!(response.status, 200, "{response:?}");
        let choice = response.json()["choices"][0].clone();
        (
            choice["message"]["content"].as_str().unwrap().to_owned(),
            choice["finish_reason"].as_str().unwrap().to_owned(),
        )
    };
    let (first, reason) = text(json!({}));
    assert_eq!((text(json!({})).0, reason.as_str()), (first.clone(), "length"));
    assert_ne!(text(json!({ "seed": 8 })).0, first);
    // Letter a is token 260.
    let (biased, _) = text(json!({ "logit_bias": { "260": 100 } }));
    assert_eq!(biased, "a".repeat(12));
    assert_eq!(text(json!({ "logit_bias": { "260": 100 }, "stop": ["x", "aaa"] })), (String::new(), "stop".into()));
    // A null is what is not there.
    assert_eq!(
        text(json!({ "stop": null, "top_p": null, "tools": null, "response_format": null, "new_field": 1 })).0,
        first
    );
    let parts =
        json!([{ "role": "user", "content": [{ "type": "text", "text": "h" }, { "type": "text", "text": "i" }] }]);
    assert_eq!(text(json!({ "messages": parts })).0, first);
}

#[test]
fn texts_are_continued() {
    let server = Server::new(ServeOptions::default());
    let body = json!({
        "prompt": ["abc", [260, 261]], "n": 2, "max_tokens": 5, "temperature": 0, "echo": true, "ignore_eos": true,
    });
    let whole = server.post("/v1/completions", &body).json();
    assert_eq!(whole["choices"].as_array().unwrap().len(), 4);
    let text = |index: usize| whole["choices"][index]["text"].as_str().unwrap().to_owned();
    assert!(text(0).starts_with("abc") && text(2).starts_with("ab"), "{whole}");
    assert_eq!((text(0), text(2)), (text(1), text(3)), "greedy");
    assert_eq!(whole["usage"]["prompt_tokens"], 4 + 2);
    assert_eq!(whole["usage"]["completion_tokens"], 20);
    let mut body = body;
    body["stream"] = true.into();
    let events = server.post("/v1/completions", &body).events();
    for index in 0..4 {
        let own = |event: &&Value| event["choices"][0]["index"] == index;
        let parts = events.iter().filter(own).map(|event| event["choices"][0]["text"].as_str().unwrap());
        assert_eq!(parts.collect::<String>(), text(index));
    }
    assert_eq!(events.last(), Some(&"[DONE]".into()));
    let nothing = server.post("/v1/completions", &json!({ "prompt": "abc", "max_tokens": 0 })).json();
    assert_eq!(
        (nothing["usage"]["prompt_tokens"].as_u64(), nothing["choices"][0]["text"].as_str()),
        (Some(4), Some(""))
    );
    let second = json!({ "prompt": ["ok", ["no"]] });
    assert_eq!(server.post("/v1/completions", &second).error().1.as_deref(), Some("prompt[1]"));
}

#[test]
fn responses_go_on_from_earlier_ones() {
    let server = Server::new(ServeOptions::default());
    let body = |more: Value| {
        let mut body = json!({ "max_output_tokens": 8, "temperature": 0, "ignore_eos": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let first = server.post("/v1/responses", &body(json!({ "input": "hi", "instructions": "be" }))).json();
    assert_eq!(
        (first["status"].as_str(), first["incomplete_details"]["reason"].as_str()),
        (Some("incomplete"), Some("max_output_tokens"))
    );
    let text = first["output"][0]["content"][0]["text"].as_str().unwrap();
    let items = json!([
        { "role": "user", "content": "hi" },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": text }] },
        { "role": "user", "content": [{ "type": "input_text", "text": "on" }] },
    ]);
    let whole = server.post("/v1/responses", &body(json!({ "input": items }))).json();
    let next =
        server.post("/v1/responses", &body(json!({ "input": "on", "previous_response_id": first["id"] }))).json();
    assert_eq!(next["output"][0]["content"], whole["output"][0]["content"], "instructions do not go on");
    assert_eq!(next["usage"]["input_tokens"], whole["usage"]["input_tokens"]);

    let response = server.post("/v1/responses", &body(json!({ "input": items, "stream": true })));
    let events = response.events();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let names: Vec<&str> = response.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds, names);
    let mut order = kinds.clone();
    order.dedup();
    assert_eq!(
        order,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ]
    );
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"][0]["text"], deltas);
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);

    let forgotten = server.post("/v1/responses", &body(json!({ "input": "hi", "store": false }))).json();
    for id in [forgotten["id"].clone(), "resp_1".into()] {
        let response = server.post("/v1/responses", &body(json!({ "input": "on", "previous_response_id": id })));
        assert_eq!((response.status, response.error().1.as_deref()), (400, Some("previous_response_id")));
    }
    let unknown = server.post("/v1/responses", &body(json!({ "input": [{ "type": "item_reference", "id": "x" }] })));
    assert_eq!(unknown.error().1.as_deref(), Some("input[0].type"));
}

#[test]
fn tokens_have_their_probabilities() {
    let server = Server::new(ServeOptions::default());
    let whole = server.post("/v1/chat/completions", &chat(json!({ "logprobs": true, "top_logprobs": 3 }))).json();
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 12);
    for token in &tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        let logprobs: Vec<f64> = top.iter().map(|top| top["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.len() == 3 && logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] <= 0.0, "{token}");
        assert!(token["logprob"].as_f64().unwrap() <= logprobs[0]);
    }
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|token| serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap()).collect();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes).trim(), text.trim());
    let stream = chat(json!({ "logprobs": true, "top_logprobs": 3, "stream": true }));
    let events = server.post("/v1/chat/completions", &stream).events();
    let streamed: Vec<Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, tokens);

    let body =
        json!({ "prompt": "abc", "max_tokens": 2, "temperature": 0, "logprobs": 2, "echo": true, "ignore_eos": true });
    let lists = server.post("/v1/completions", &body).json()["choices"][0]["logprobs"].clone();
    // The beginning token is no part of the text, so all that is has a probability.
    assert_eq!(lists["tokens"].as_array().unwrap()[..3], ["a", "b", "c"]);
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(lists[list].as_array().unwrap().len(), 5, "{list}");
    }
    assert_eq!(lists["text_offset"].as_array().unwrap()[..4], [0, 1, 2, 3]);
    assert!(lists["token_logprobs"].as_array().unwrap().iter().all(|logprob| logprob.as_f64().unwrap() < 0.0));
    // Without its beginning token, nothing is before the first.
    let body = json!({ "prompt": [260, 261], "max_tokens": 1, "temperature": 0, "logprobs": 2, "echo": true });
    let lists = server.post("/v1/completions", &body).json()["choices"][0]["logprobs"].clone();
    assert_eq!(
        (&lists["tokens"][0], &lists["token_logprobs"][0], &lists["tokens"][1]),
        (&json!("a"), &Value::Null, &json!("b"))
    );
}

#[test]
fn answers_have_the_form_that_was_asked_for() {
    let server = Server::new(ServeOptions::default());
    let schema = json!({ "type": "object", "properties": { "a": { "enum": ["x", "yy"] } }, "required": ["a"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema } });
    let more = json!({ "response_format": format, "max_tokens": 100, "ignore_eos": false, "n": 4 });
    let whole = server.post("/v1/chat/completions", &chat(more)).json();
    for choice in whole["choices"].as_array().unwrap() {
        assert_eq!(choice["finish_reason"], "stop", "{whole}");
        let answer: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
        assert!(answer == json!({ "a": "x" }) || answer == json!({ "a": "yy" }), "{answer}");
    }
    let text = json!({ "input": "hi", "text": { "format": { "type": "json_schema", "name": "s", "schema": schema } } });
    let response = server.post("/v1/responses", &text).json();
    let answer = response["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(answer).unwrap()["a"].is_string(), "{response}");
    let gbnf = json!({ "prompt": "abc", "grammar": "root ::= \"ab\" | \"xyz\"", "max_tokens": 50 });
    let text = server.post("/v1/completions", &gbnf).json()["choices"][0]["text"].clone();
    assert!(text == "ab" || text == "xyz", "{text}");

    let nested = (0..60).fold(json!({ "type": "string" }), |inner, _| json!({ "allOf": [inner] }));
    let bad = [
        (json!({ "type": "nonsense" }), "response_format"),
        (json!({ "type": "string", "pattern": "(a{1000}){1000}" }), "response_format"),
        (json!({ "type": "string", "pattern": "(((" }), "response_format"),
        (json!({ "$ref": "#/nowhere" }), "response_format"),
        (json!(false), "response_format"),
        (nested, ""),
    ];
    for (schema, param) in bad {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema } });
        let response = server.post("/v1/chat/completions", &chat(json!({ "response_format": format })));
        assert_eq!(response.status, 400, "{schema}: {response:?}");
        assert_eq!(response.error().1.unwrap_or_default(), param, "{schema}: {response:?}");
    }
    let grammar = server.post("/v1/completions", &json!({ "prompt": "a", "grammar": "root ::= (" }));
    assert_eq!((grammar.status, grammar.error().1.as_deref()), (400, Some("grammar")));
}

#[test]
fn functions_are_called() {
    let server = Server::new(ServeOptions::default());
    let parameters =
        json!({ "type": "object", "properties": { "city": { "enum": ["Rome", "Oslo"] } }, "required": ["city"] });
    let function = json!({ "name": "weather", "description": "tells it", "parameters": parameters });
    let other = json!({ "name": "other", "parameters": { "type": "object", "properties": {} } });
    let tools = json!([{ "type": "function", "function": other }, { "type": "function", "function": function }]);
    let choice = json!({ "type": "function", "function": { "name": "weather" } });
    let more = json!({ "tools": tools, "tool_choice": choice, "max_tokens": 120, "ignore_eos": false });
    let whole = server.post("/v1/chat/completions", &chat(more.clone())).json();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null),
        "{whole}"
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["Rome", "Oslo"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");

    let mut stream = more;
    stream["stream"] = true.into();
    let events = server.post("/v1/chat/completions", &chat(stream)).events();
    let deltas: Vec<&Value> =
        events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]).filter(|d| d.is_object()).collect();
    assert_eq!((&deltas[0]["function"]["name"], &deltas[0]["id"]), (&json!("weather"), &call["id"]));
    let joined: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(joined, call["function"]["arguments"].as_str().unwrap());

    // The result goes on; what was called is in the conversation in the shape in which it came.
    let messages = json!([
        { "role": "user", "content": "hi" },
        choice["message"],
        { "role": "tool", "tool_call_id": call["id"], "content": "sunny" },
    ]);
    let next = server.post(
        "/v1/chat/completions",
        &chat(json!({ "messages": messages, "tools": tools, "tool_choice": "none", "max_tokens": 2 })),
    );
    assert_eq!(next.status, 200, "{next:?}");

    let flat = json!([{ "type": "function", "name": "weather", "parameters": parameters }]);
    let body = json!({ "input": "hi", "tools": flat, "tool_choice": "required", "max_output_tokens": 120, "stream": true, "seed": 1 });
    let events = server.post("/v1/responses", &body).events();
    let last = &events.last().unwrap()["response"];
    assert_eq!(
        (&last["output"][0]["type"], &last["output"][0]["name"]),
        (&json!("function_call"), &json!("weather")),
        "{last}"
    );
    let output =
        json!([{ "type": "function_call_output", "call_id": last["output"][0]["call_id"], "output": "sunny" }]);
    let next = json!({ "input": output, "previous_response_id": last["id"], "max_output_tokens": 2 });
    assert_eq!(server.post("/v1/responses", &next).status, 200);

    let both = chat(json!({ "tools": tools, "response_format": { "type": "json_object" } }));
    assert_eq!(server.post("/v1/chat/completions", &both).error().1.as_deref(), Some("tools"));
}

#[test]
fn vectors_come_in_both_encodings() {
    let server = Server::new(ServeOptions::default());
    let floats = server.post("/v1/embeddings", &json!({ "input": ["abc", "x"], "dimensions": 32 })).json();
    let packed = server.post("/v1/embeddings", &json!({ "input": ["abc", "x"], "encoding_format": "base64" })).json();
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 6, "total_tokens": 6 }));
    for index in 0..2 {
        let floats: Vec<f32> = serde_json::from_value(floats["data"][index]["embedding"].clone()).unwrap();
        let bytes = STANDARD.decode(packed["data"][index]["embedding"].as_str().unwrap()).unwrap();
        let unpacked: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!((floats.len(), &floats), (32, &unpacked));
        assert!((floats.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    let tokens = server.post("/v1/embeddings", &json!({ "input": [1, 260, 261, 262] })).json();
    assert_eq!(tokens["data"][0]["embedding"], floats["data"][0]["embedding"]);
}

#[test]
fn facts_tokens_and_health() {
    let server = Server::new(ServeOptions { alias: Some("my/model".into()), ..ServeOptions::default() });
    let models = server.get("/v1/models").json();
    assert_eq!(
        (models["data"][0]["id"].as_str(), models["data"][0]["fastq"]["layers"].as_u64()),
        (Some("my/model"), Some(2))
    );
    assert_eq!(server.get("/v1/models/my/model").json()["id"], "my/model");
    let unknown = server.get("/v1/models/other");
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    let tokens = server.post("/tokenize", &json!({ "content": "ab</s>", "add_special": true })).json();
    assert_eq!(tokens["tokens"], json!([1, 260, 261, 2]));
    let pieces = server.post("/tokenize", &json!({ "content": "é", "with_pieces": true })).json();
    assert_eq!(pieces["tokens"][0], json!({ "id": 3 + 0xc3, "piece": [0xc3] }));
    let text = server.post("/detokenize", &json!({ "tokens": [260, 261, 3 + 0xc3, 3 + 0xa9] })).json();
    assert_eq!(text["content"], "abé");
    let out = server.post("/detokenize", &json!({ "tokens": [286] }));
    assert_eq!((out.status, out.error().1.as_deref()), (400, Some("tokens")));
    assert_eq!(server.get("/health").json(), json!({ "status": "ok", "running": 0, "waiting": 0 }));
    server.post("/v1/completions", &json!({ "prompt": "ab", "max_tokens": 3, "ignore_eos": true }));
    assert_eq!((server.metric("fastq_prompt_tokens_total"), server.metric("fastq_answer_tokens_total")), (3.0, 3.0));
    assert!(server.metric("fastq_requests_total{status=\"2xx\"}") >= 7.0);
    assert_eq!(server.metric("fastq_requests_total{status=\"5xx\"}"), 0.0);
}

#[test]
fn the_page_asks_nobody_else() {
    let server = Server::new(ServeOptions::default());
    for (path, kind) in [("/", "text/html"), ("/style.css", "text/css"), ("/script.js", "text/javascript")] {
        let page = server.get(path);
        assert!(page.status == 200 && page.header("content-type").unwrap().starts_with(kind), "{}", page.head);
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; script-src 'self';"));
        assert!(
            !page.body.contains("//fonts") && !page.body.contains("http:") && !page.body.contains("https:"),
            "{path}"
        );
        assert!(!page.body.contains("innerHTML") && !page.body.contains("<script>") && !page.body.contains("style="));
    }
}
