"""How models that came before templates in files want conversations to be written: the formats by their names.

A format is a row of a table. The prompts are those of llama-cpp-python, blanks included, because models were used with
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
SNOOZY = (
    "The prompt below is a question to answer, a task to complete, or a conversation to respond to; "
    "decide which and write an appropriate response."
)


@dataclass(frozen=True)
class Format:
    """How a conversation is written.

    Attributes:
        user: What a message of the user begins with.
        assistant: The same of the assistant; the prompt ends with it.
        between: What comes between that and the text.
        ends: What messages end with, those at even places and those at odd ones.
        system: How the system's message is written, with ``{}`` in its place; ``None`` leaves it out.
        default: The system's message where the conversation has none.
        fixed: Use ``default`` whatever the conversation says.
        system_end: What comes after the system's message.
        always: Write the system's part although there is no message.
        opens: Whether the prompt ends with ``assistant``.
        stop: Where answers end.
    """

    user: str
    assistant: str
    between: str = ""
    ends: tuple[str, str] = ("", "")
    system: str | None = "{}"
    default: str = ""
    fixed: bool = False
    system_end: str = ""
    always: bool = True
    opens: bool = True
    stop: str | None = None

    def prompt(self, messages: Sequence[Any]) -> str:
        """The prompt of a conversation."""
        parts = []
        if self.system is not None:
            said = self.default if self.fixed else system_message(messages) or self.default
            if said or self.always:
                parts.append(self.system.replace("{}", said) + self.system_end)
        prefixes = {"user": self.user, "assistant": self.assistant}
        turns = [(prefixes[message["role"]], text_of(message)) for message in messages if message["role"] in prefixes]
        for at, (prefix, text) in enumerate(turns):
            # A message without text is one that is to be written.
            parts.append(
                prefix + self.between + text + self.ends[at % 2] if text else prefix + self.between.rstrip(" ")
            )
        if self.opens:
            parts.append(self.assistant + self.between.rstrip(" "))
        return "".join(parts)


def system_message(messages: Sequence[Any]) -> str:
    """The first message of the system; empty without one."""
    return next((text_of(message) for message in messages if message["role"] == "system"), "")


def text_of(message: Any) -> str:
    """The text of a message, which may be in parts.

    Raises:
        NotImplementedError: A part is an image.
    """
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            if part.get("type") != "text":
                raise NotImplementedError(f"messages: fastq reads text only, found a part of type {part.get('type')!r}")
        return "".join(part["text"] for part in content)
    return content or ""


def _colon(user: str, assistant: str, end: str, second: str | None = None, **rest: Any) -> Format:
    """``User: text`` and a separator, which also follows the system's message."""
    ends = (end, end if second is None else second)
    return Format(user, assistant, between=": ", ends=ends, system_end=end, **rest)


def _lines(user: str, assistant: str, end: str, **rest: Any) -> Format:
    """A line for who speaks, the text on the next ones, and a mark."""
    return Format(user, assistant, between="\n", ends=(end + "\n", end + "\n"), system_end=end + "\n", **rest)


def _both(end: str) -> tuple[str, str]:
    return (end, end)


FORMATS: dict[str, Format | Callable[[Sequence[Any]], tuple[str, str | None]]] = {
    "alpaca": _colon("### Instruction", "### Response", "\n\n", "</s>", opens=False),
    "baichuan": Format("<reserved_102>", "<reserved_103>"),
    "baichuan-2": Format("<reserved_106>", "<reserved_107>"),
    "chatml": _lines(
        "<|im_start|>user", "<|im_start|>assistant", "<|im_end|>", system="<|im_start|>system\n{}", stop="<|im_end|>"
    ),
    "gemma": Format(
        "<start_of_turn>user\n",
        "<start_of_turn>model\n",
        ends=_both("<end_of_turn>\n"),
        system=None,
        stop="<end_of_turn>\n",
    ),
    "intel": _colon(
        "### User:", "### Assistant:", "\n", default="{system_message}", fixed=True, system="### System:\n{}"
    ),
    "llama-3": Format(
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ends=_both("<|eot_id|>"),
        system="<|start_header_id|>system<|end_header_id|>\n\n{}",
        system_end="<|eot_id|>",
        always=False,
        stop="<|eot_id|>",
    ),
    "mistrallite": Format("<|prompter|>", "</s>\n<|assistant|>", ends=_both(" "), system="<|system|>{}</s>"),
    "oasst_llama": Format(
        "<|prompter|>", "<|assistant|>", ends=_both("</s>"), system="[INST] <<SYS>>\n{}\n<</SYS>>\n\n"
    ),
    "openchat": _lines(
        "GPT4 Correct User: ",
        "<|end_of_turn|>GPT4 Correct Assistant: ",
        "<|end_of_turn|>",
        system="{}<|end_of_turn|>",
        stop="<|end_of_turn|>",
    ),
    "phind": _colon(
        "### User Message",
        "### Assistant",
        "\n\n",
        default="### System Prompt\nYou are an intelligent programming assistant.",
        fixed=True,
    ),
    "pygmalion": _lines("<|user|>", "<|model|>", "\n", system="<|system|>{}", stop="\n"),
    "qwen": _lines(
        "<|im_start|>user",
        "<|im_start|>assistant",
        "<|im_end|>",
        system="<|im_start|>system\n{}",
        default="You are a helpful assistant.",
        stop="<|endoftext|>",
    ),
    "redpajama-incite": _colon("<human>", "<bot>", "\n", stop="<human>"),
    "snoozy": _colon("### Prompt", "### Response", "\n", default=SNOOZY, stop="###"),
    "vicuna": _colon("USER", "ASSISTANT", " ", "</s>", default=VICUNA, fixed=True),
    "zephyr": _lines("<|user|>\n", "<|assistant|>\n", "</s>", system="<|system|>\n{}", stop="</s>"),
}
"""Those that are a row of the table; the others are below."""


def _format(name: str) -> Callable[[Any], Any]:
    def add(write: Callable[[Sequence[Any]], tuple[str, str | None]]) -> Any:
        FORMATS[name] = write
        return write

    return add


@_format("llama-2")
def llama_2(messages: Sequence[Any]) -> tuple[str, str | None]:
    """The system's message is a part of the first one of the user."""
    said = system_message(messages)
    prefixes, ends = {"user": "<s>[INST]", "assistant": "[/INST]"}, (" ", "</s>")
    parts = [f"[INST] <<SYS>>\n{said}\n<</SYS>> " if said else " "]
    turns = [message for message in messages if message["role"] in prefixes]
    for at, message in enumerate(turns):
        text, prefix = text_of(message), prefixes[message["role"]]
        if said and at == 0:
            parts.append(text + ends[0])
        else:
            parts.append(f"{prefix}{text} {ends[at % 2]}" if text else prefix + " ")
    return "".join(parts) + "[/INST]", None


@_format("mistral-instruct")
def mistral_instruct(messages: Sequence[Any]) -> tuple[str, str | None]:
    """The models know no message of the system."""
    written = {"user": "[INST] {}", "assistant": " [/INST]{}</s>"}
    parts = [
        written[message["role"]].replace("{}", text_of(message)) for message in messages if message["role"] in written
    ]
    return "".join(parts) + " [/INST]", "</s>"


@_format("saiga")
def saiga(messages: Sequence[Any]) -> tuple[str, str | None]:
    """The assistant is ``bot``."""
    roles = [message for message in messages if message["role"] in ("system", "user", "bot")]
    parts = [f"<s>{message['role']}\n{text_of(message)}</s>" for message in roles]
    return ("".join(parts) + "<s>bot").strip(), None


@_format("chatglm3")
def chatglm3(messages: Sequence[Any]) -> tuple[str, str | None]:
    """Texts begin with a blank, and nothing ends them."""
    prefixes = {"user": "<|user|>", "assistant": "<|assistant|>"}
    parts = [f"<|system|>\n{system_message(messages)}"]
    for message in messages:
        if message["role"] in prefixes:
            text = text_of(message)
            parts.append(f"{prefixes[message['role']]}\n {text}" if text else prefixes[message["role"]])
    return "".join(parts) + "<|assistant|>", "</s>"


def write(name: str, messages: Sequence[Any]) -> tuple[str, str | None]:
    """The prompt of a conversation in a format, and where answers end.

    Raises:
        KeyError: There is no such format.
    """
    style = FORMATS[name]
    return (style.prompt(messages), style.stop) if isinstance(style, Format) else style(messages)
