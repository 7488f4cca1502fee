//! Chat templates: the common families with their expected text, and hostile ones.

mod tokenizer_support;

use std::time::{Duration, Instant};

use fastq_core::Error;
use fastq_core::template::{ChatTemplate, MAX_OUTPUT, MAX_SOURCE};
use serde_json::{Map, Value, json};

fn render(source: &str, messages: &Value) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(messages.as_array().unwrap(), None, true, &Map::new())
}

fn chat() -> Value {
    json!([{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}])
}

fn message(source: &str) -> String {
    match render(source, &chat()) {
        Err(Error::Template(message)) => message,
        other => panic!("{source:.80}: {other:?}"),
    }
}

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

const GEMMA: &str = "{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = \"\" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception(\"Conversation roles must alternate user/assistant/user/assistant/...\") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = \"model\" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
";

const MISTRAL: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for message in rest %}{% if message['role'] == 'user' %}{{ '[INST] ' + (system + '\n\n' if loop.first and system is defined else '') + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

const ZEPHYR: &str = "{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}";

const PHI3: &str = "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";

const QWEN: &str = r##"{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>assistant\n' + content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '\n<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif not (message.role == 'system' and tools) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
    {%- if loop.index0 == ns.last_query_index %}{{- '[last]' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"##;

#[test]
fn common_families() {
    #[rustfmt::skip]
    let cases = [
        (CHATML, "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"),
        (LLAMA3, "<s><|start_header_id|>system<|end_header_id|>\n\nBe terse.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
        (GEMMA, "<s><start_of_turn>user\nBe terse.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"),
        (MISTRAL, "<s>[INST] Be terse.\n\nHi [/INST] Hello.</s>[INST] Bye [/INST]"),
        (ZEPHYR, "<|system|>\nBe terse.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n"),
        (PHI3, "<|system|>\nBe terse.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &chat()).unwrap(), expected);
    }
    let parts = json!([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "}]}]);
    assert_eq!(render(GEMMA, &parts).unwrap(), "<s><start_of_turn>user\nWhat?<end_of_turn>\n<start_of_turn>model\n");
    let no_system = json!([{"role": "user", "content": "é </s> {{ 1 }}"}]);
    assert_eq!(
        render(CHATML, &no_system).unwrap(),
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\né </s> {{ 1 }}<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn tools_and_extra_variables() {
    let messages = json!([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "<think>x</think>\n\nOk", "tool_calls": [{"function": {"name": "w", "arguments": {"city": "Zürich", "n": 1.5, "l": [1, true, null]}}}]},
        {"role": "tool", "content": "sun"},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "w", "description": "a <b> & 'c'"}}]);
    let template = ChatTemplate::new(QWEN, "", "").unwrap();
    let extra = json!({"enable_thinking": false}).as_object().unwrap().clone();
    let text = template.render(messages.as_array().unwrap(), Some(&tools), true, &extra).unwrap();
    #[rustfmt::skip]
    assert_eq!(text, concat!(
        "<|im_start|>system\nS\n\n# Tools\n\n<tools>\n",
        r#"{"type": "function", "function": {"name": "w", "description": "a <b> & 'c'"}}"#, "\n</tools><|im_end|>\n",
        "<|im_start|>user\nWeather?<|im_end|>\n[last]<|im_start|>assistant\nOk\n<tool_call>\n",
        r#"{"name": "w", "arguments": {"city": "Zürich", "n": 1.5, "l": [1, true, null]}}"#, "\n</tool_call><|im_end|>\n",
        "<|im_start|>user\n<tool_response>\nsun\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ));
}

#[test]
fn what_templates_expect_to_find() {
    let hi = json!([{"role": "user", "content": "Hi"}]);
    #[rustfmt::skip]
    let cases = [
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "023"),
        ("{{ {'a': [1, {}], 'b': []} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"),
        ("{{ 'a\"\\\\\n\u{1}é' | tojson(ensure_ascii=false) }}", r#""a\"\\\n\u0001é""#),
        ("{{ messages[0].get('nothing', 'x') }}{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "xrole=user;content=Hi;"),
        ("{{ messages[0].nothing }}{{ tools is none }}{{ undefined_name is defined }}", "TrueFalse"),
        ("{{ messages[-1]['content'] | upper }}{{ ' x '.strip() }}{{ 'a,b'.split(',') | join('-') }}{{ 'ab'.replace('a', 'c') }}", "HIxa-bcb"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{% set x %}cap{% endset %}{{ x }}", "<1>cap"),
        ("  {% if true %}\na\n  {% endif %}\nb", "a\nb"),
        ("a\n", "a"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &hi).unwrap(), expected, "{source}");
    }
    let date = render("{{ strftime_now('%d %b %Y') }}", &hi).unwrap();
    assert!(date.len() == 11 && date[7..].parse::<u32>().unwrap() >= 2024, "{date}");
}

#[test]
fn what_the_template_raises_reaches_the_caller() {
    assert_eq!(message("\n{{ raise_exception('no') }}"), "chat template line 2: no");
    let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let error = render(GEMMA, &twice).unwrap_err().to_string();
    assert!(error.contains("Conversation roles must alternate"), "{error}");
}

#[test]
fn hostile_templates_end_in_an_error() {
    let parens = format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000));
    let ifs = "{% if 1 %}".repeat(5_000) + &"{% endif %}".repeat(5_000);
    let lists = format!("{{{{ {}{} }}}}", "[".repeat(20_000), "]".repeat(20_000));
    let nots = format!("{{{{ {}1 }}}}", "not ".repeat(100_000));
    let minus = format!("{{{{ {}1 }}}}", "-".repeat(100_000));
    let sums = format!("{{{{ 1{} }}}}", "+1".repeat(100_000));
    let attributes = format!("{{{{ messages{} }}}}", ".a".repeat(100_000));
    let filters = format!("{{{{ 1{} }}}}", "|abs".repeat(100_000));
    let mut near_limit =
        [nots.as_str(), minus.as_str(), sums.as_str(), attributes.as_str(), filters.as_str()].map(|source| {
            let length = source.len() - 3;
            let unit = (length - 3) / 100_000;
            format!(
                "{}{}",
                &source[..source.len().min(3 + unit * 1000)],
                if source.ends_with("1 }}") { "1 }}" } else { " }}" }
            )
        });
    near_limit.sort();
    let elifs = "{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(20_000) + "{% endif %}";
    let cases = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
        "{{ cycler.__init__.__globals__.os.popen('touch fastq_pwned').read() }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'A' * 1000000000 }}",
        "{{ 'A' * 5000000 }}",
        "{% for a in range(9999) %}{{ 'A' * 1000 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends 'chat template' %}",
        "{% include 'chat template' %}",
        "{% if messages %}",
        "{{ messages | nosuchfilter }}",
        "{{ nosuchfunction() }}",
        "{{ undefined_name.attribute }}",
        "{{ range | tojson(nosuch=1) }}",
        parens.as_str(),
        lists.as_str(),
    ];
    for source in cases {
        let start = Instant::now();
        let message = message(source);
        assert!(message.starts_with("chat template"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(9), "{source:.60}: {:?}", start.elapsed());
    }
    // Either answer is right; none may take the process down.
    for source in near_limit.iter().chain([&ifs, &nots, &minus, &sums, &attributes, &filters, &elifs]) {
        let result = render(source, &chat());
        assert!(matches!(result, Ok(_) | Err(Error::Template(_))), "{source:.60} {result:?}");
    }
    assert!(render("{{ '{0.__class__}'.format(messages) }}", &chat()).is_err());
    assert!(!std::path::Path::new("fastq_pwned").exists());
    let long = ChatTemplate::new(&" ".repeat(MAX_SOURCE + 1), "", "").unwrap_err().to_string();
    assert!(long.contains("1048576 bytes, found 1048577"), "{long}");
    let output = message("{{ 'A' * 5000000 }}");
    assert!(output.contains(&MAX_OUTPUT.to_string()), "{output}");
}

#[test]
fn deep_messages_are_refused() {
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let error = render("{{ messages | tojson }}", &json!([{"role": "user", "content": deep}])).unwrap_err();
    assert!(matches!(error, Error::Template(_)), "{error}");
}

#[test]
fn long_conversations_fit_the_limits() {
    let messages: Vec<Value> = (0..10_000)
        .map(|index| json!({"role": if index % 2 == 0 { "user" } else { "assistant" }, "content": "some words"}))
        .collect();
    for source in [CHATML, GEMMA, QWEN] {
        assert!(render(source, &Value::from(messages.clone())).unwrap().len() > 100_000);
    }
}

#[test]
fn from_a_file() {
    let file = tokenizer_support::bpe("gpt-2");
    let template = |file: &tokenizer_support::File| ChatTemplate::from_gguf(&file.gguf(), &file.tokenizer().unwrap());
    assert!(template(&file).unwrap().is_none());
    assert!(template(&file.clone().string("tokenizer.chat_template", b"")).unwrap().is_none());
    let eos = template(&file.clone().string("tokenizer.chat_template", b"{{ eos_token }}")).unwrap().unwrap();
    assert_eq!(eos.render(&[], None, false, &Map::new()).unwrap(), "<|end|>");
    let bad = template(&file.clone().string("tokenizer.chat_template", b"\xff\xfe{{ 1 }}")).unwrap_err().to_string();
    assert!(bad.contains("tokenizer.chat_template"), "{bad}");
    assert!(template(&file.clone().u32("tokenizer.chat_template", 1)).is_err());
    assert!(template(&file.clone().string("tokenizer.chat_template", &[b' '; MAX_SOURCE]).clone()).unwrap().is_none());
    assert!(template(&file.clone().string("tokenizer.chat_template", &[b'x'; MAX_SOURCE + 1])).is_err());
    // A broken template only shows when it is used.
    let broken = template(&file.string("tokenizer.chat_template", b"{% if %}")).unwrap().unwrap();
    assert!(matches!(broken.render(&[], None, false, &Map::new()), Err(Error::Template(_))));
}

#[test]
fn generation_tags_write_nothing() {
    let source = "{% for m in messages %}\n  {%- generation -%}\n{{ m.content }}{% endgeneration %}|{% endfor %}{{ 'generation' }}";
    assert_eq!(render(source, &chat()).unwrap(), "Be terse.|Hi|Hello.|Bye|generation");
    assert!(message("{% generation %}").contains("line 1"));
    assert!(message("{% endgeneration %}").contains("line 1"));
    assert_eq!(render("{% raw %}{% generation %}{% endraw %}", &chat()).unwrap(), "{% generation %}");
}

#[test]
fn json_as_python_writes_it() {
    let value = "{'b': [1, true, none, 'é😀\\n'], 'a': {}}";
    for (arguments, expected) in [
        ("", r#"{"b": [1, true, null, "é😀\n"], "a": {}}"#),
        ("ensure_ascii=true", r#"{"b": [1, true, null, "\u00e9\ud83d\ude00\n"], "a": {}}"#),
        ("separators=(',', ':')", r#"{"b":[1,true,null,"é😀\n"],"a":{}}"#),
        ("sort_keys=true", r#"{"a": {}, "b": [1, true, null, "é😀\n"]}"#),
        ("indent=1, separators=[';', '=']", "{\n \"b\"=[\n  1;\n  true;\n  null;\n  \"é😀\\n\"\n ];\n \"a\"={}\n}"),
    ] {
        assert_eq!(render(&format!("{{{{ {value}|tojson({arguments}) }}}}"), &chat()).unwrap(), expected);
    }
    assert!(message("{{ 1|tojson(separators=[',']) }}").contains("two strings"));
}

#[test]
fn none_cannot_be_looped_over() {
    let source =
        "{{ none is iterable }} {{ 1 is iterable }} {{ 'a' is iterable }} {{ [] is iterable }} {{ {} is iterable }}";
    assert_eq!(render(source, &chat()).unwrap(), "False False True True True");
}

#[test]
fn indented_lines_keep_the_last_line_feed() {
    for (arguments, expected) in [
        ("", "a\n\n    b\n"),
        ("(2)", "a\n\n  b\n"),
        ("(2, true)", "  a\n\n  b\n"),
        ("(width=1, first=true)", " a\n\n b\n"),
        ("(1, blank=true)", "a\n \n b\n "),
    ] {
        assert_eq!(
            render(&format!("{{{{ 'a\\n\\nb\\n'|indent{arguments} }}}}"), &chat()).unwrap(),
            expected,
            "{arguments}"
        );
    }
    assert!(message("{{ 'a'|indent(1025) }}").contains("at most 1024"));
}
