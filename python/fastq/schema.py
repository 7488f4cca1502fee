"""Structured answers: Python types as JSON Schemas, and JSON as values of Python types.

Used by ``schema=`` and for the parameters of tools. Both ways know the same types:

=========================================  ==========================================================================
type                                       JSON
=========================================  ==========================================================================
``str``, ``int``, ``float``, ``bool``      as named
``None``                                   ``null``
``Any``                                    anything
``list[T]``, ``Sequence[T]``, ``set[T]``   array
``tuple[T, ...]``, ``tuple[A, B]``         array; of exactly these
``dict[str, T]``, ``Mapping[str, T]``      object
``A | B``, ``Optional[A]``                 one of them; the first that fits
``Literal["a", 1]``, ``Enum``              one of the values
``datetime``, ``date``, ``UUID``           string
``Annotated[T, "what it is"]``             as ``T``, with a description
dataclass, ``TypedDict``                   object with these keys and no others; what has a default may be missing
pydantic model                             what pydantic makes of it
=========================================  ==========================================================================
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import json
import re
import types
import typing
import uuid
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lark", "construct", "json_schema", "parse"]

CONSTRAINTS = ("schema", "regex", "choices", "grammar")
"""Options of which an answer can have one."""

SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
    list: {"type": "array"},
    dict: {"type": "object"},
}

WRITTEN: dict[Any, tuple[str, Callable[[str], Any]]] = {
    # Python before 3.11 does not know the Z.
    datetime.datetime: ("date-time", lambda text: datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))),
    datetime.date: ("date", datetime.date.fromisoformat),
    uuid.UUID: ("uuid", uuid.UUID),
}
"""Types that JSON writes as strings: the format in a schema, and how they are read."""

ARRAYS: dict[Any, type] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Set: set,
}
OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

KNOWN = (
    "str, int, float, bool, None, Any, list, set, tuple, dict, unions, Literal, Enum, datetime, date, UUID, "
    "dataclasses, TypedDicts and pydantic models"
)


class Lark(str):
    """A grammar in Lark's notation, where it could be taken for GBNF.

    The notation is that of llguidance: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md

    Example:
        >>> from fastq import Lark
        >>> Lark('start: "yes" | "no"')
        Lark('start: "yes" | "no"')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Lark({str.__repr__(self)})"


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON Schema of a type, or a schema as it is.

    Args:
        schema: A type of those that this module lists, a JSON Schema as a mapping, or a pydantic ``TypeAdapter``.

    Raises:
        TypeError: JSON has no such type, or an annotation cannot be resolved.

    Example:
        >>> from fastq.schema import json_schema
        >>> json_schema(list[int] | None)
        {'anyOf': [{'type': 'array', 'items': {'type': 'integer'}}, {'type': 'null'}]}
    """
    if isinstance(schema, collections.abc.Mapping):
        return dict(schema)
    definitions: dict[str, Any] = {}
    result = _schema(schema, definitions, {})
    return {**result, "$defs": definitions} if definitions else result


def parse(schema: Any, text: str) -> Any:
    """A JSON text as a value of a type.

    Args:
        schema: What :func:`json_schema` takes. Of a mapping the text is read only, not checked.
        text: JSON.

    Raises:
        ValueError: The text is not JSON, or not of this type.

    Example:
        >>> from fastq.schema import parse
        >>> parse(dict[str, tuple[int, int]], '{"a": [1, 2]}')
        {'a': (1, 2)}
    """
    if _is_pydantic(schema):
        return schema.model_validate_json(text)
    if _is_adapter(schema):
        return schema.validate_json(text)
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    return value if isinstance(schema, collections.abc.Mapping) else construct(schema, value)


def construct(target: Any, value: Any, place: str = "the answer") -> Any:
    """A value of a type, of what ``json.loads`` gave.

    Args:
        target: A type of those that this module lists.
        value: What JSON gave.
        place: What to call it in messages.

    Raises:
        ValueError: It is not of this type; the message says where.
    """
    target, _ = _bare(target)
    if target is Any or target is object:
        return value
    if target in WRITTEN:
        try:
            return WRITTEN[target][1](_expect(value, str, place))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: expected {target.__name__}, found {value!r}") from error
    if target in SIMPLE:
        return _simple(target, value, place)
    origin, arguments = typing.get_origin(target), typing.get_args(target)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise ValueError(f"{place}: expected one of {arguments}, found {value!r}")
    if origin in (Union, types.UnionType):
        for member in arguments:
            try:
                return construct(member, value, place)
            except ValueError:
                continue
        raise ValueError(f"{place}: expected {target}, found {value!r}")
    if origin is tuple or target is tuple:
        return _tuple(arguments, _expect(value, list, place), place)
    if (kind := ARRAYS.get(origin or target)) is not None:
        element = arguments[0] if arguments else Any
        return kind(construct(element, item, f"{place}[{i}]") for i, item in enumerate(_expect(value, list, place)))
    if (origin or target) in OBJECTS:
        element = arguments[1] if arguments else Any
        return {key: construct(element, item, f"{place}.{key}") for key, item in _expect(value, dict, place).items()}
    if isinstance(target, type) and issubclass(target, enum.Enum):
        return target(value)
    if _is_pydantic(target):
        return target.model_validate(value)
    if dataclasses.is_dataclass(target) or typing.is_typeddict(target):
        hints, required = _fields(target)
        given = _expect(value, dict, place)
        wrong = [key for key in required if key not in given] + [key for key in given if key not in hints]
        if wrong:
            raise ValueError(f"{place}: expected the keys of {target.__name__}, found {list(given)}")
        # A TypedDict, too, is made by calling it with its keys.
        return target(**{key: construct(hints[key], item, f"{place}.{key}") for key, item in given.items()})
    raise TypeError(f"JSON has no {target!r}: use {KNOWN}")


def constrain(options: dict[str, Any]) -> Any:
    """Replace what an answer must be by ``grammar``, as the engine takes it; gives what was ``schema``.

    Raises:
        TypeError: A value has a wrong type.
        ValueError: There are several, or a grammar is in no known notation.
    """
    given = {name: value for name in CONSTRAINTS if (value := options.pop(name, None)) is not None}
    if len(given) > 1:
        raise ValueError(f"an answer can have one of {', '.join(CONSTRAINTS)}, found {' and '.join(given)}")
    for name, value in given.items():
        options["grammar"] = _SOURCES[name](value)
    return given.get("schema")


def _of_schema(schema: Any) -> tuple[str, str]:
    try:
        return "json_schema", json.dumps(json_schema(schema), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"schema: {error}") from error


def _of_regex(regex: Any) -> tuple[str, str]:
    if not isinstance(regex, str):
        raise TypeError(f"regex: expected str, found {type(regex).__name__}")
    return "regex", regex


def _of_choices(choices: Any) -> tuple[str, list[str]]:
    if isinstance(choices, str) or not isinstance(choices, collections.abc.Iterable):
        raise TypeError(f"choices: expected several str, found {choices!r}")
    choices = list(choices)
    if wrong := [choice for choice in choices if not isinstance(choice, str)]:
        raise TypeError(f"choices: expected str, found {wrong[0]!r}")
    return "choices", choices


def _of_grammar(grammar: Any) -> tuple[str, str]:
    if not isinstance(grammar, str):
        raise TypeError(f"grammar: expected str, found {type(grammar).__name__}")
    if isinstance(grammar, Lark):
        return "lark", str(grammar)
    # What comes first decides: either sign may be part of a string.
    sign = re.search(r"^[ \t]*[?!]?[\w-]+(?:\.\d+)?(?:[ \t]*\[[^\]]*\])?[ \t]*(::=|:)", grammar, re.MULTILINE)
    if sign is None:
        raise ValueError("grammar: expected GBNF (rules with ::=) or Lark (rules with :), found neither")
    return "gbnf" if sign[1] == "::=" else "lark", grammar


_SOURCES: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "schema": _of_schema,
    "regex": _of_regex,
    "choices": _of_choices,
    "grammar": _of_grammar,
}


def _is_pydantic(target: Any) -> bool:
    return isinstance(target, type) and hasattr(target, "model_json_schema")


def _is_adapter(target: Any) -> bool:
    return not isinstance(target, type) and hasattr(target, "validate_json") and hasattr(target, "json_schema")


def _bare(target: Any) -> tuple[Any, str | None]:
    """A type without what says nothing about its values, and its description."""
    description = None
    while True:
        origin = typing.get_origin(target)
        if origin is typing.Annotated:
            texts = [note for note in target.__metadata__ if isinstance(note, str)]
            description = texts[0] if texts and description is None else description
            target = target.__origin__
        elif str(origin) in ("typing.Required", "typing.NotRequired", "typing.ReadOnly") or (
            origin is not None and getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly")
        ):
            target = typing.get_args(target)[0]
        elif hasattr(target, "__supertype__"):
            target = target.__supertype__
        elif type(target).__name__ == "TypeAliasType":
            target = target.__value__
        elif not isinstance(target, collections.abc.Hashable):
            raise TypeError(f"JSON has no {target!r}: use {KNOWN}")
        else:
            return target, description


def _fields(target: Any) -> tuple[dict[str, Any], list[str]]:
    """Types of the keys of a dataclass or ``TypedDict``, and the keys that must be there."""
    hints = types_of(target)
    if typing.is_typeddict(target):
        return hints, [key for key in hints if key in target.__required_keys__]
    fields = [field for field in dataclasses.fields(target) if field.init]
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    return {field.name: hints[field.name] for field in fields}, required


def types_of(target: Any) -> dict[str, Any]:
    """The types of a class or function, as objects.

    Raises:
        TypeError: One of them cannot be found.
    """
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        name = getattr(target, "__name__", target)
        raise TypeError(
            f"an annotation of {name} cannot be resolved: {error}; define it where the module sees it"
        ) from error


def _schema(target: Any, definitions: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    """The schema of a type. Classes go to ``definitions``, since they may contain themselves; ``names`` are theirs."""
    target, description = _bare(target)
    result = _schema_of_bare(target, definitions, names)
    return {**result, "description": description} if description else result


def _schema_of_bare(target: Any, definitions: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    if _is_pydantic(target) or _is_adapter(target):
        schema = dict(target.model_json_schema() if _is_pydantic(target) else target.json_schema())
        for name, definition in schema.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:
                raise TypeError(f"there are two classes named {name}")
        return schema
    origin, arguments = typing.get_origin(target), typing.get_args(target)
    if target in SIMPLE:
        return dict(SIMPLE[target])
    if target in WRITTEN:
        return {"type": "string", "format": WRITTEN[target][0]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(member, definitions, names) for member in arguments]}
    if origin is tuple or target is tuple:
        if not arguments:
            return {"type": "array"} if target is tuple else {"type": "array", "maxItems": 0}
        if len(arguments) == 2 and arguments[1] is ...:
            return {"type": "array", "items": _schema(arguments[0], definitions, names)}
        items = [_schema(member, definitions, names) for member in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if (origin or target) in ARRAYS:
        element = {"items": _schema(arguments[0], definitions, names)} if arguments else {}
        return {"type": "array", **element}
    if (origin or target) in OBJECTS:
        if arguments and arguments[0] is not str:
            raise TypeError(f"the keys of JSON objects are str, found {target!r}")
        values = {"additionalProperties": _schema(arguments[1], definitions, names)} if arguments else {}
        return {"type": "object", **values}
    if isinstance(target, type) and issubclass(target, enum.Enum):
        return {"enum": [member.value for member in target]}
    if isinstance(target, type) and (dataclasses.is_dataclass(target) or typing.is_typeddict(target)):
        if target not in names:
            if target.__name__ in definitions:
                raise TypeError(f"there are two classes named {target.__name__}")
            names[target] = target.__name__
            definitions[target.__name__] = {}  # so that it can refer to itself
            hints, required = _fields(target)
            definitions[target.__name__] = {
                "type": "object",
                "properties": {key: _schema(hint, definitions, names) for key, hint in hints.items()},
                "required": required,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{names[target]}"}
    raise TypeError(f"JSON has no {target!r}: use {KNOWN}")


def _expect(value: Any, kind: type, place: str) -> Any:
    if isinstance(value, kind):
        return value
    raise ValueError(f"{place}: expected {kind.__name__}, found {value!r}")


def _simple(target: Any, value: Any, place: str) -> Any:
    if target is None or target is type(None):
        if value is None:
            return None
    elif target is float and type(value) in (int, float):
        return float(value)
    elif target is int and type(value) is float and value.is_integer():
        return int(value)
    elif type(value) is target:
        return value
    raise ValueError(f"{place}: expected {getattr(target, '__name__', target)}, found {value!r}")


def _tuple(arguments: tuple[Any, ...], items: list[Any], place: str) -> tuple[Any, ...]:
    if not arguments:
        return tuple(items)
    if len(arguments) == 2 and arguments[1] is ...:
        arguments = (arguments[0],) * len(items)
    if len(arguments) != len(items):
        raise ValueError(f"{place}: expected {len(arguments)} items, found {len(items)}")
    return tuple(
        construct(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(zip(arguments, items, strict=True))
    )
