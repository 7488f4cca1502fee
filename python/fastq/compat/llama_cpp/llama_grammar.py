"""Grammars that answers must follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["JSON_ARR_GBNF", "JSON_GBNF", "LIST_GBNF", "LlamaGrammar"]

VALUES = r"""
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (member ("," ws member)*)? "}" ws
member ::= string ":" ws value
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
JSON_GBNF = "root ::= object" + VALUES
"""A JSON object."""
JSON_ARR_GBNF = "root ::= array" + VALUES
"""A JSON array."""
LIST_GBNF = r"""
root ::= item+
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"""
"""Lines that begin with a dash."""


class LlamaGrammar:
    """A grammar in GBNF, or a JSON Schema. It is compiled, and refused if it is malformed, when it is used.

    Args:
        _grammar: The grammar in GBNF.
    """

    def __init__(self, *args: Any, _grammar: str, **kwargs: Any) -> None:
        self._grammar = _grammar
        self._root = "root"
        self._schema: dict[str, Any] | bool | None = None

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """A grammar in GBNF, which begins with the rule ``root``."""
        return cls(_grammar=grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """A grammar in a file.

        Raises:
            ValueError: The file is empty.
            OSError: The system refuses to read it.
        """
        text = Path(file).read_text(encoding="utf-8")
        if not text:
            raise ValueError(f"from_file: error parsing grammar file: {os.fspath(file)} is empty")
        return cls.from_string(text, verbose=verbose)

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """JSON that a schema describes.

        As in the original, an object has no other keys than those of its ``properties`` unless the schema says
        ``additionalProperties``.

        Raises:
            ValueError: The schema is not JSON.
        """
        result = cls(_grammar="")
        result._schema = closed(json.loads(json_schema))
        return result


OF_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties")
"""Keys whose values are schemas by name."""


def closed(schema: Any) -> Any:
    """A schema whose objects have the keys that it names only, wherever it leaves that open.

    The parts of ``allOf`` stay as they are: each names some of the keys of one object.
    """
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key in OF_SCHEMAS and isinstance(value, dict):
            result[key] = {name: closed(item) for name, item in value.items()}
        elif key in ("enum", "const", "default", "examples", "allOf"):
            result[key] = value
        else:
            result[key] = closed(value)
    if "properties" in result and not result.keys() & {"additionalProperties", "unevaluatedProperties", "allOf"}:
        result["additionalProperties"] = "patternProperties" in result
    return result


def option(grammar: Any) -> dict[str, Any]:
    """The option of :class:`fastq.GenerateOptions` that a grammar is.

    Raises:
        TypeError: It is no grammar.
    """
    if grammar is None:
        return {}
    if not isinstance(grammar, LlamaGrammar):
        raise TypeError(f"grammar: expected a LlamaGrammar, found {type(grammar).__name__}")
    if grammar._schema is not None:
        return {"schema": grammar._schema}
    return {"grammar": grammar._grammar}
