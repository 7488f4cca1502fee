"""Calls whose answers are compared with those of llama-cpp-python: by shape, or exactly where rounding plays no part.

Each takes the module (`llama_cpp`, or what stands in for it) and the path of a model. Only the standard library is
imported, so that the peer's interpreter can run this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Case = Callable[[Any, str], Any]

PROMPT = "Q: Name the planets in the solar system? A: "
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "UserDetail",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
        },
    },
}
CHOICE = {"type": "function", "function": {"name": "UserDetail"}}
ASKED = [{"role": "system", "content": "Extract."}, {"role": "user", "content": "Jason is 25 years old"}]


def load(module: Any, path: str, **arguments: Any) -> Any:
    return module.Llama(model_path=path, **{"n_ctx": 512, "verbose": False, "seed": 1, **arguments})


def call(**arguments: Any) -> Case:
    return lambda module, path: load(module, path, logits_all="logprobs" in arguments)(
        PROMPT, **{"max_tokens": 4, "temperature": 0.0, **arguments}
    )


def chat(messages: list[Any] = QUESTION, chat_format: str | None = None, **arguments: Any) -> Case:
    def case(module: Any, path: str) -> Any:
        llm = load(module, path, logits_all="logprobs" in arguments, chat_format=chat_format)
        return llm.create_chat_completion(messages, **{"max_tokens": 12, "temperature": 0.0, **arguments})

    return case


def stopped(module: Any, path: str) -> Any:
    llm, calls = load(module, path), []

    def third(ids: Any, logits: Any) -> bool:
        calls.append(len(ids))
        return len(calls) >= 3

    criteria = module.StoppingCriteriaList([third])
    return llm(PROMPT, max_tokens=9, temperature=0.0, stopping_criteria=criteria)


SHAPES: dict[str, Case] = {
    "completion": call(),
    "completion echo": call(echo=True, stop=["Q:", "\n"]),
    "completion tokens": lambda module, path: load(module, path).create_completion([504, 3575], max_tokens=1),
    "completion stream": call(stream=True),
    "completion logprobs": call(logprobs=2),
    "completion logprobs echo": call(logprobs=2, echo=True),
    "completion logprobs stream": call(logprobs=2, stream=True),
    "completion stopping_criteria": stopped,
    "chat": chat(),
    "chat stream": chat(stream=True),
    "chat chatml": chat(chat_format="chatml"),
    "chat logprobs": chat(logprobs=True, top_logprobs=2),
    "chat json": chat(chat_format="chatml", response_format={"type": "json_object"}),
    "chat function": chat(ASKED, "chatml-function-calling", tools=[TOOL], tool_choice=CHOICE, max_tokens=48),
    "chat function stream": chat(
        ASKED, "chatml-function-calling", tools=[TOOL], tool_choice=CHOICE, max_tokens=48, stream=True
    ),
    "chat function old": chat(ASKED, functions=[TOOL["function"]], function_call={"name": "UserDetail"}, max_tokens=48),
}
"""Of a model that generates."""

VECTORS: dict[str, Case] = {
    "create_embedding": lambda module, path: load(module, path, embedding=True).create_embedding("Hello, world!"),
    "create_embedding list": lambda module, path: load(module, path, embedding=True).create_embedding(
        ["Hello, world!", "Goodbye, world!"]
    ),
    "embed": lambda module, path: load(module, path, embedding=True).embed("Hello, world!"),
    "embed count": lambda module, path: list(
        load(module, path, embedding=True).embed(["Hello", "world"], normalize=True, return_count=True)
    ),
}
"""Of a model made for vectors."""

TEXTS = ["Hello world", " leading", "naïve café", "日本語 🦙", "a\n\nb\t c", "<|im_start|>user", "", "😀😀"]


def text(module: Any, path: str) -> Any:
    llm = load(module, path)
    ids = list(range(0, llm.n_vocab(), llm.n_vocab() // 400))
    return {
        "tokens": [
            llm.tokenize(text.encode(), add_bos=add_bos, special=special)
            for text in TEXTS
            for add_bos in (False, True)
            for special in (False, True)
        ],
        "bytes": [llm.detokenize([token], special=special).hex() for token in ids for special in (False, True)],
        "joined": [llm.detokenize(llm.tokenize(text.encode())).hex() for text in TEXTS],
        "decoded": [llm.tokenizer().decode(llm.tokenizer().encode(text)) for text in TEXTS],
    }


def facts(module: Any, path: str) -> Any:
    llm = load(module, path, n_ctx=256)
    return {
        "named": [llm.token_bos(), llm.token_eos(), llm.token_nl()],
        "sizes": [llm.n_ctx(), llm.n_vocab(), llm.n_embd()],
        "metadata": {key: value for key, value in llm.metadata.items() if key != "general.file_type"},
        "chat_format": llm.chat_format,
    }


CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Hi there"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}],
    [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
        {"role": "assistant", "content": "Four"},
        {"role": "user", "content": "Five"},
    ],
]
FORMATS = (
    "alpaca",
    "baichuan",
    "baichuan-2",
    "chatglm3",
    "chatml",
    "chatml-function-calling",
    "gemma",
    "intel",
    "llama-2",
    "llama-3",
    "mistral-instruct",
    "mistrallite",
    "oasst_llama",
    "openchat",
    "phind",
    "pygmalion",
    "qwen",
    "redpajama-incite",
    "saiga",
    "snoozy",
    "vicuna",
    "zephyr",
)


class Recorder:
    """Stands for a model; keeps what a chat format asks of it."""

    verbose = False

    def __init__(self) -> None:
        self.prompt, self.asked = "", dict[str, Any]()

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        self.prompt = text.decode()
        return [1]

    def create_completion(self, prompt: Any, **asked: Any) -> Any:
        self.prompt = prompt if isinstance(prompt, str) else self.prompt
        self.asked = asked
        choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
        return {"id": "cmpl-0", "object": "", "created": 0, "model": "", "choices": [choice], "usage": usage}


def prompt(chat_formats: Any, name: str, messages: list[Any]) -> list[Any]:
    """The prompt of a conversation in a format, and the stop strings."""
    recorder = Recorder()
    chat_formats.get_chat_completion_handler(name)(llama=recorder, messages=messages)
    return [recorder.prompt, recorder.asked["stop"] or []]


METHODS = (
    "__call__",
    "create_completion",
    "create_chat_completion",
    "create_embedding",
    "embed",
    "tokenize",
    "detokenize",
    "sample",
    "generate",
    "from_pretrained",
)


def signature(function: Any) -> dict[str, str]:
    """The parameters of a function and their defaults."""
    parameters = list(inspect.signature(function).parameters.values())
    return {p.name: repr(p.default) for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"}


def shape(value: Any) -> Any:
    """Keys and types, recursively. A list is the shape of its items, once where they are alike."""
    if isinstance(value, dict):
        return {str(key): shape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        shapes: list[Any] = []
        for item in map(shape, value):
            if item not in shapes:
                shapes.append(item)
        return shapes
    if hasattr(value, "__next__"):
        return shape(list(value))
    # Numbers of numpy count as those of Python.
    name = type(value).__name__
    return "float" if name.startswith("float") else "int" if name.startswith("int") else name


def without_words(value: Any) -> Any:
    """A shape without the words that are keys of `top_logprobs`: they depend on rounding."""
    if isinstance(value, dict):
        words = {key: without_words(item) for key, item in value.items() if key != "top_logprobs"}
        if isinstance(top := value.get("top_logprobs"), list):
            kinds = [
                sorted(set(item.values())) if isinstance(item, dict) and "token" not in item else item for item in top
            ]
            words["top_logprobs"] = [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]]
        return words
    return [without_words(item) for item in value] if isinstance(value, list) else value


def deduplicated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: deduplicated(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [deduplicated(item) for item in value]
        return [item for at, item in enumerate(items) if item not in items[:at]]
    return value


def shape_of(answer: Any) -> Any:
    return deduplicated(without_words(shape(answer)))
