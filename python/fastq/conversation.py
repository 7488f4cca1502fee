"""A chat call under way: what has been said, and the tools that are run in between."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastq.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastq import _fastq
    from fastq.completion import ChatCompletion, ToolCall

__all__ = ["Conversation"]


class Conversation:
    """Messages, tools and options of one call of ``chat``; grows by a round whenever tools are run."""

    messages: list[Any]
    tools: Tools
    tool_choice: Any
    variables: dict[str, Any]
    options: _fastq.Options
    schema: Any
    rounds: int
    keep: bool
    added: list[dict[str, Any]]

    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Any,
        tool_choice: Any,
        variables: Mapping[str, Any] | None,
        rounds: int | None,
        *,
        asynchronous: bool,
    ) -> None:
        self.messages = list(messages)
        self.tools = Tools(tools or ())
        self.tool_choice = _choice(tool_choice)
        self.variables = dict(variables or {})
        self.rounds = rounds or 0
        self.keep = False
        self.added = []
        if rounds is not None:
            self.tools.check_runnable(asynchronous=asynchronous)

    def calls(self, answers: list[ChatCompletion]) -> list[ToolCall]:
        """The calls that are to be run before the model goes on."""
        return answers[0].tool_calls if self.rounds > 0 and answers[0].finish_reason == "tool_calls" else []

    def add(self, answer: ChatCompletion, results: list[dict[str, Any]]) -> None:
        """Go on with the calls of an answer and what they gave."""
        self.added += [answer.message, *results]
        self.messages += [answer.message, *results]
        self.rounds -= 1
        # What was demanded was done; to demand it again would never end.
        if self.tool_choice != "none":
            self.tool_choice = "auto"

    def finish(self, answer: ChatCompletion) -> ChatCompletion:
        """The answer with all that the call added to the conversation."""
        return replace(answer, messages=[*self.added, *answer.messages]) if self.added else answer


def _choice(choice: Any) -> str:
    """``"auto"``, ``"none"``, ``"required"`` or a tool's name, also of the form in which OpenAI has a name."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        return choice
    try:
        name = choice["function"]["name"]
    except (KeyError, TypeError):
        name = None
    if isinstance(name, str):
        return name
    raise TypeError(f'tool_choice: expected "auto", "none", "required" or the name of a tool, found {choice!r}')
