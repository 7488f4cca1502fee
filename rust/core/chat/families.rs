//! How model families write tool calls and reasoning: data, one entry each.
//!
//! A family is recognised by what its template contains, or by the tokens of its vocabulary; names of models play no part.

/// How the inside of a call is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// `{"name": …, "arguments": {…}}`, one or a list of them. The key of the arguments may be `parameters`.
    Json,
    /// `NAME`, then this text, then the arguments as JSON.
    Named(&'static str),
    /// Mistral's: `[{"name": …}]`, or `NAME[ARGS]{…}`, or `NAME[CALL_ID]ID[ARGS]{…}`.
    Mistral,
    /// `NAME>` and `<parameter=KEY>\nVALUE\n</parameter>` in turn up to `</function>`; `true` where `<function=` comes before it.
    Xml(bool),
    /// `[name(key="value"), …]` or `name(key="value")`; JSON, too.
    Python,
    /// `call:NAME{key:VALUE,…}` with this around strings.
    Bare(&'static str),
}

/// One way to write a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    /// What opens a call; empty where nothing does.
    pub(super) open: &'static str,
    pub(super) body: Body,
    /// What closes it; models may leave it out.
    pub(super) close: &'static str,
    /// Other markers inside.
    pub(super) inner: &'static [&'static str],
    /// It counts only where an answer begins, and only when it is a call beyond doubt: nobody marked it as one.
    pub(super) doubtful: bool,
}

const fn marked(open: &'static str, body: Body, close: &'static str) -> Syntax {
    Syntax { open, body, close, inner: &[], doubtful: false }
}

const fn doubtful(open: &'static str, body: Body, close: &'static str) -> Syntax {
    Syntax { open, body, close, inner: &[], doubtful: true }
}

/// A family.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    /// The template contains all strings of one of these groups.
    pub(super) template: &'static [&'static [&'static str]],
    /// The template contains none of these.
    pub(super) without: &'static [&'static str],
    /// Without a hint in the template: all of these are tokens.
    pub(super) vocabulary: &'static [&'static str],
    /// How calls may come; the first is what a grammar asks for and what a model is told.
    pub(super) calls: &'static [Syntax],
    /// The key of the arguments, where calls are JSON.
    pub(super) arguments: &'static str,
    /// JSON comes as a list, also of one call.
    pub(super) list: bool,
    /// Ids are nine letters and digits (Mistral), otherwise `call_` and 24.
    pub(super) short_ids: bool,
    /// Messages are in channels (gpt-oss).
    pub(super) harmony: bool,
}

const FAMILY: Family = Family {
    name: "",
    template: &[],
    without: &[],
    vocabulary: &[],
    calls: &[],
    arguments: "arguments",
    list: false,
    short_ids: false,
    harmony: false,
};

const UNMARKED: Syntax = doubtful("", Body::Json, "");
const FENCED: Syntax = doubtful("```json", Body::Json, "```");
const TAGGED: Syntax = marked("<tool_call>", Body::Json, "</tool_call>");

/// The first whose template matches, then the first whose vocabulary does, then the last.
pub(super) static FAMILIES: &[Family] = &[
    // <https://cookbook.openai.com/articles/openai-harmony>
    Family { name: "harmony", template: &[&["<|channel|>", "<|message|>"]], harmony: true, ..FAMILY },
    // <https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices>
    Family {
        name: "functiongemma",
        template: &[&["<start_function_call>"]],
        calls: &[Syntax {
            inner: &["<escape>"],
            ..marked("<start_function_call>", Body::Bare("<escape>"), "<end_function_call>")
        }],
        ..FAMILY
    },
    Family {
        name: "gemma4",
        template: &[&["<|tool_call>", "<tool_call|>"]],
        calls: &[Syntax { inner: &["<|\"|>"], ..marked("<|tool_call>", Body::Bare("<|\"|>"), "<tool_call|>") }],
        ..FAMILY
    },
    // <https://docs.liquid.ai/lfm/key-concepts/tool-use>
    Family {
        name: "lfm2",
        template: &[&["<|tool_call_start|>"], &["<|tool_list_start|>"]],
        calls: &[marked("<|tool_call_start|>", Body::Python, "<|tool_call_end|>")],
        ..FAMILY
    },
    // <https://docs.mistral.ai/cookbooks/concept-deep-dive-tokenization-tool_calling>
    Family {
        name: "mistral",
        template: &[&["[TOOL_CALLS]"]],
        calls: &[Syntax { inner: &["[ARGS]", "[CALL_ID]"], ..marked("[TOOL_CALLS]", Body::Mistral, "") }],
        short_ids: true,
        ..FAMILY
    },
    // Qwen3-Coder, Qwen3.5: <https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct>
    Family {
        name: "qwen-xml",
        template: &[&["<function=", "<parameter="]],
        calls: &[
            marked("<tool_call>", Body::Xml(true), "</tool_call>"),
            marked("<function=", Body::Xml(false), "</tool_call>"),
        ],
        ..FAMILY
    },
    // <https://huggingface.co/microsoft/Phi-4-mini-instruct>
    Family {
        name: "phi4",
        template: &[&["<|/tool_call|>"], &["<|tool|>"]],
        vocabulary: &["<|tool_call|>", "<|/tool_call|>"],
        calls: &[
            marked("<|tool_call|>", Body::Json, "<|/tool_call|>"),
            doubtful("functools", Body::Json, ""),
            UNMARKED,
        ],
        list: true,
        ..FAMILY
    },
    // <https://www.ibm.com/granite/docs/models/granite>
    Family {
        name: "granite",
        template: &[&["<|tool_call|>"]],
        vocabulary: &["<|tool_call|>"],
        calls: &[marked("<|tool_call|>", Body::Json, ""), TAGGED],
        list: true,
        ..FAMILY
    },
    // Hermes, Qwen2.5, Qwen3, SmolLM3, Granite 4: <https://github.com/NousResearch/Hermes-Function-Calling>
    Family {
        name: "hermes",
        template: &[&["<tool_call>"]],
        without: &["<arg_key>"],
        vocabulary: &["<tool_call>", "</tool_call>"],
        calls: &[TAGGED],
        ..FAMILY
    },
    // <https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/>
    Family {
        name: "llama3",
        template: &[&["<|python_tag|>"], &["<|start_header_id|>", "\"parameters\""], &["<function=example"]],
        calls: &[
            UNMARKED,
            marked("<|python_tag|>", Body::Json, ""),
            marked("<function=", Body::Named(">"), "</function>"),
        ],
        arguments: "parameters",
        ..FAMILY
    },
    // Trained without markers: <https://ai.google.dev/gemma/docs/capabilities/function-calling>
    Family {
        name: "gemma3",
        template: &[&["<start_of_turn>"]],
        calls: &[UNMARKED, FENCED, doubtful("```tool_code", Body::Python, "```"), TAGGED],
        arguments: "parameters",
        ..FAMILY
    },
    // Everything else; SmolLM2 writes lists between tags.
    Family { name: "json", calls: &[UNMARKED, FENCED, TAGGED], ..FAMILY },
];

/// How a model sets its reasoning apart.
#[derive(Debug)]
pub(super) struct Reasoning {
    /// Each of them opens it, where an answer begins.
    pub(super) open: &'static [&'static str],
    /// Each of them ends it.
    pub(super) close: &'static [&'static str],
    /// The template contains one of these.
    pub(super) template: &'static [&'static str],
    /// Or all of these are tokens.
    pub(super) vocabulary: &'static [&'static str],
}

pub(super) static REASONING: &[Reasoning] = &[
    // DeepSeek-R1 and its distillations, Qwen3, SmolLM3.
    Reasoning {
        open: &["<think>"],
        close: &["</think>"],
        template: &["<think>", "</think>"],
        vocabulary: &["<think>", "</think>"],
    },
    // Magistral.
    Reasoning {
        open: &["[THINK]"],
        close: &["[/THINK]"],
        template: &["[THINK]", "[/THINK]"],
        vocabulary: &["[THINK]", "[/THINK]"],
    },
    // Granite 3.2.
    Reasoning {
        open: &["Here is my thought process:", "Here's my thought process:"],
        close: &["Here is my response:", "Here's my response:"],
        template: &["Here is my thought process:"],
        vocabulary: &["Here is my thought process:"],
    },
    // Gemma 4.
    Reasoning {
        open: &["<|channel>thought\n"],
        close: &["<channel|>"],
        template: &["<|channel>thought"],
        vocabulary: &["<|channel>", "<channel|>"],
    },
];

/// Marks around the answer that go with some reasoning (Granite 3.3).
pub(super) const RESPONSE: [&str; 2] = ["<response>", "</response>"];

/// Markers of harmony.
pub(super) mod harmony {
    pub(in super::super) const START: &str = "<|start|>";
    pub(in super::super) const CHANNEL: &str = "<|channel|>";
    pub(in super::super) const CONSTRAIN: &str = "<|constrain|>";
    pub(in super::super) const MESSAGE: &str = "<|message|>";
    pub(in super::super) const END: &str = "<|end|>";
    pub(in super::super) const RETURN: &str = "<|return|>";
    pub(in super::super) const CALL: &str = "<|call|>";
    pub(in super::super) const ALL: [&str; 7] = [START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL];
}

#[cfg(test)]
mod tests {
    use super::{FAMILIES, REASONING};

    /// The parser acts on a marker as soon as it is complete.
    #[test]
    fn no_marker_begins_another() {
        for family in FAMILIES {
            let mut markers: Vec<&str> =
                family.calls.iter().map(|call| call.open).filter(|open| !open.is_empty()).collect();
            markers.extend(REASONING.iter().flat_map(|reasoning| reasoning.open));
            for (index, marker) in markers.iter().enumerate() {
                for other in &markers[index + 1..] {
                    assert!(
                        !marker.starts_with(other) && !other.starts_with(marker),
                        "{}: {marker} {other}",
                        family.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_family_that_is_told_to_a_model_is_json() {
        for family in FAMILIES.iter().filter(|family| !family.vocabulary.is_empty() || family.template.is_empty()) {
            assert_eq!(family.calls[0].body, super::Body::Json, "{}", family.name);
        }
    }
}
