"""Conversations: how they become prompts, and completions become messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastq.compat.llama_cpp import _formats, _template
from fastq.compat.llama_cpp._messages import answered, called
from fastq.compat.llama_cpp.llama_grammar import JSON_GBNF, LlamaGrammar

if TYPE_CHECKING:
    from fastq.compat.llama_cpp.llama import Llama

__all__ = [
    "ChatFormatter",
    "ChatFormatterResponse",
    "Jinja2ChatFormatter",
    "LlamaChatCompletionHandler",
    "LlamaChatCompletionHandlerNotFoundException",
    "chat_formatter_to_chat_completion_handler",
    "get_chat_completion_handler",
    "register_chat_completion_handler",
    "register_chat_format",
]

DEFAULT_TEMPLATE = "chat_template.default"
"""The format that is the template of the file."""

LlamaChatCompletionHandler = Callable[..., Any]
"""Takes ``llama=`` and the arguments of :meth:`Llama.create_chat_completion`, and answers as that does."""

ChatFormatter = Callable[..., "ChatFormatterResponse"]
"""Takes ``messages=`` and further arguments, and gives the prompt."""


class LlamaChatCompletionHandlerNotFoundException(Exception):  # noqa: N818 - the name of the original
    """There is no format of this name."""


@dataclass
class ChatFormatterResponse:
    """A conversation as a prompt.

    Attributes:
        prompt: The prompt.
        stop: Where the answer ends.
        stopping_criteria: Functions that end it.
        added_special: Whether the prompt has its BOS.
    """

    prompt: str
    stop: str | list[str] | None = None
    stopping_criteria: Any = None
    added_special: bool = False


def chat_formatter_to_chat_completion_handler(formatter: ChatFormatter) -> LlamaChatCompletionHandler:
    """What answers conversations that a formatter writes."""

    def handler(
        *,
        llama: Llama,
        messages: list[Any],
        functions: list[Any] | None = None,
        function_call: Any = None,
        tools: list[Any] | None = None,
        tool_choice: Any = None,
        response_format: Any = None,
        stop: str | list[str] | None = None,
        stream: bool = False,
        grammar: LlamaGrammar | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        **rest: Any,
    ) -> Any:
        tools, tool_choice = modern(functions, function_call, tools, tool_choice)
        written = formatter(
            messages=messages,
            functions=functions,
            function_call=function_call,
            tools=tools,
            tool_choice=tool_choice,
        )
        prompt = llama.tokenize(written.prompt.encode("utf-8"), add_bos=not written.added_special, special=True)
        tool = chosen(tools, tool_choice)
        if tool is not None:
            grammar = grammar_of_schema(tool["function"].get("parameters", {}))
        elif (wanted := grammar_of_format(response_format)) is not None:
            grammar = wanted
        answer = llama.create_completion(
            prompt=prompt,
            stream=stream,
            stop=[*texts(stop), *texts(written.stop)],
            stopping_criteria=written.stopping_criteria,
            grammar=grammar,
            logprobs=(top_logprobs or 0) if logprobs else None,
            **rest,
        )
        return answered(answer, stream) if tool is None else called(tool["function"]["name"], answer, stream)

    return handler


def texts(given: str | list[str] | None) -> list[str]:
    """One text or several, as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def modern(functions: Any, function_call: Any, tools: Any, tool_choice: Any) -> tuple[list[Any] | None, Any]:
    """Tools and what is chosen of them, of either form."""
    if functions is not None:
        tools = [{"type": "function", "function": function} for function in functions]
    if function_call in ("none", "auto"):
        tool_choice = function_call
    elif isinstance(function_call, dict) and "name" in function_call:
        tool_choice = {"type": "function", "function": {"name": function_call["name"]}}
    return tools, tool_choice


def chosen(tools: list[Any] | None, tool_choice: Any) -> Any:
    """The tool that is to be called, or ``None``.

    Raises:
        ValueError: It is not among the tools.
    """
    if not isinstance(tool_choice, dict) or tools is None:
        return None
    name = tool_choice["function"]["name"]
    for tool in tools:
        if tool["function"]["name"] == name:
            return tool
    raise ValueError(f"Tool choice '{name}' not found in tools.")


def grammar_of_schema(schema: Any) -> LlamaGrammar:
    """The grammar of the arguments of a tool, or of an answer."""
    return LlamaGrammar.from_json_schema(json.dumps(schema))


def grammar_of_format(response_format: Any) -> LlamaGrammar | None:
    """What ``response_format`` asks for.

    Raises:
        ValueError: It is of none of the known types.
    """
    kind = "text" if response_format is None else response_format["type"]
    if kind == "json_object":
        schema = response_format.get("schema")
        return LlamaGrammar.from_string(JSON_GBNF) if schema is None else grammar_of_schema(schema)
    if kind == "json_schema":
        return grammar_of_schema(response_format["json_schema"]["schema"])
    if kind != "text":
        raise ValueError(f'response_format: expected the type "text", "json_object" or "json_schema", found {kind!r}')
    return None


class Jinja2ChatFormatter:
    """Writes conversations with a template, by the package ``jinja2``.

    Args:
        template: The template.
        eos_token: The text of the token that ends texts; answers end there.
        bos_token: That of the token that begins them.
        add_generation_prompt: End with the opening of the assistant's answer.
        stop_token_ids: Tokens after which the answer ends.

    Raises:
        ImportError: ``jinja2`` is not installed. The template of a file does not need it.
    """

    def __init__(
        self,
        template: str,
        eos_token: str,
        bos_token: str,
        add_generation_prompt: bool = True,
        stop_token_ids: list[int] | None = None,
    ) -> None:
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise ImportError("Jinja2ChatFormatter needs the jinja2 package: pip install jinja2") from error
        self.template, self.eos_token, self.bos_token = template, eos_token, bos_token
        self.add_generation_prompt = add_generation_prompt
        self.stop_token_ids = None if stop_token_ids is None else set(stop_token_ids)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **how: json.dumps(value, **{"ensure_ascii": False, **how})
        self._template = environment.from_string(template)

    def __call__(self, *, messages: list[Any], **rest: Any) -> ChatFormatterResponse:
        """The prompt of a conversation."""
        from datetime import datetime

        def raise_exception(message: str) -> None:
            raise ValueError(message)

        prompt = self._template.render(
            messages=messages,
            eos_token=self.eos_token,
            bos_token=self.bos_token,
            add_generation_prompt=self.add_generation_prompt,
            raise_exception=raise_exception,
            strftime_now=lambda form: datetime.now().strftime(form),
            **rest,
        )
        ends, criteria = self.stop_token_ids, None
        if ends is not None:
            criteria = [lambda tokens, logits: int(tokens[-1]) in ends]
        return ChatFormatterResponse(prompt, [self.eos_token], criteria, added_special=True)

    def to_chat_handler(self) -> LlamaChatCompletionHandler:
        """What answers conversations that it writes."""
        return chat_formatter_to_chat_completion_handler(self)


_handlers: dict[str, LlamaChatCompletionHandler] = {}


def register_chat_completion_handler(name: str) -> Callable[[LlamaChatCompletionHandler], LlamaChatCompletionHandler]:
    """Makes a function the handler of a format.

    Raises:
        ValueError: The format has one.
    """

    def add(handler: LlamaChatCompletionHandler) -> LlamaChatCompletionHandler:
        if name in _handlers:
            raise ValueError(f"Formatter with name '{name}' is already registered.")
        _handlers[name] = handler
        return handler

    return add


def register_chat_format(name: str) -> Callable[[ChatFormatter], ChatFormatter]:
    """Makes a function the formatter of a format.

    Raises:
        ValueError: The format has one.
    """

    def add(formatter: ChatFormatter) -> ChatFormatter:
        register_chat_completion_handler(name)(chat_formatter_to_chat_completion_handler(formatter))
        return formatter

    return add


def get_chat_completion_handler(name: str) -> LlamaChatCompletionHandler:
    """The handler of a format.

    Raises:
        LlamaChatCompletionHandlerNotFoundException: There is no such format.
    """
    check(name)
    return _handlers[name]


def check(name: str) -> None:
    """Refuse a format that is not known.

    Raises:
        NotImplementedError: It is one of those of functionary, which need a tokenizer of their own.
        LlamaChatCompletionHandlerNotFoundException: There is no such format.
    """
    if name.startswith("functionary"):
        raise NotImplementedError(
            f"chat_format={name!r} is not supported; use the template of the file, or chatml-function-calling"
        )
    if name not in _handlers:
        known = ", ".join(sorted(_handlers))
        raise LlamaChatCompletionHandlerNotFoundException(f"Invalid chat handler: {name} (valid formats: {known})")


def _of_table(name: str) -> ChatFormatter:
    def formatter(*, messages: list[Any], **_: Any) -> ChatFormatterResponse:
        return ChatFormatterResponse(*_formats.write(name, messages))

    return formatter


for _name in _formats.FORMATS:
    register_chat_format(_name)(_of_table(_name))
register_chat_completion_handler(DEFAULT_TEMPLATE)(_template.handler)


@register_chat_completion_handler("chatml-function-calling")
def _function_calling(**arguments: Any) -> Any:
    from fastq.compat.llama_cpp import _function_calling

    return _function_calling.handler(**arguments)


MULTIMODAL = (
    "Gemma4ChatHandler",
    "Llama3VisionAlphaChatHandler",
    "Llava15ChatHandler",
    "Llava16ChatHandler",
    "MTMDChatHandler",
    "MiniCPMv26ChatHandler",
    "MoondreamChatHandler",
    "NanoLlavaChatHandler",
    "ObsidianChatHandler",
    "Qwen25VLChatHandler",
)


class _TextOnly:
    """Stands for the handlers of models that see images."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("fastq reads text only: there are no handlers for images")

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Iterator[Any]:
        """Refused as the constructor."""
        return cls()  # type: ignore[return-value]


def __getattr__(name: str) -> Any:
    if name in MULTIMODAL:
        return _TextOnly
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
