"""Python types as JSON Schemas and back."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest

import fastq
from fastq.completion import Completion, Timings, Usage
from fastq.schema import constrain, construct, json_schema, parse


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: Annotated[float, "upwards"] = 0.0


@dataclasses.dataclass
class Tree:
    value: Point
    children: list[Tree] = dataclasses.field(default_factory=list)
    computed: int = dataclasses.field(default=3, init=False)


class Movie(TypedDict, total=False):
    title: str
    year: int | None


class Library(TypedDict):
    movies: list[Movie]
    best: Point


class Model:
    """Looks like a pydantic model, as far as fastq looks."""

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return {"type": "object", "properties": {"name": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"type": "string"}}}

    @staticmethod
    def model_validate_json(text: str) -> Model:
        return Model(**json.loads(text))

    @staticmethod
    def model_validate(value: Any) -> Model:
        return Model(**value)


UserId = NewType("UserId", int)

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "number", "description": "upwards"}},
    "required": ["x"],
    "additionalProperties": False,
}

CASES: list[tuple[Any, dict[str, Any], Any, Any]] = [
    (str, {"type": "string"}, "a", "a"),
    (int, {"type": "integer"}, 3, 3),
    (int, {"type": "integer"}, 3.0, 3),
    (float, {"type": "number"}, 3, 3.0),
    (bool, {"type": "boolean"}, True, True),
    (None, {"type": "null"}, None, None),
    (Any, {}, {"a": [1]}, {"a": [1]}),
    (UserId, {"type": "integer"}, 3, 3),
    (list, {"type": "array"}, [1, "a"], [1, "a"]),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [1, 2], [1, 2]),
    (Sequence[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
    (set[int], {"type": "array", "items": {"type": "integer"}}, [1, 1], {1}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1, 2, 3], (1, 2, 3)),
    (
        tuple[int, str],
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 2},
        [1, "a"],
        (1, "a"),
    ),
    (dict, {"type": "object"}, {"a": 1}, {"a": 1}),
    (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}, {"a": 1}, {"a": 1.0}),
    (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": 1}),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),  # noqa: UP045
    (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "1", "1"),  # noqa: UP007
    (int | list[str], {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]}, ["a"], ["a"]),
    (Literal["a", 1], {"enum": ["a", 1]}, 1, 1),
    (Colour, {"enum": ["red", "blue"]}, "blue", Colour.BLUE),
    (Annotated[int, "how many"], {"type": "integer", "description": "how many"}, 1, 1),
    (datetime.date, {"type": "string", "format": "date"}, "2026-01-02", datetime.date(2026, 1, 2)),
    (
        datetime.datetime,
        {"type": "string", "format": "date-time"},
        "2026-01-02T03:04:05Z",
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    ),
    (uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    (Point, {"$ref": "#/$defs/Point", "$defs": {"Point": POINT}}, {"x": 1}, Point(1)),
    (
        Tree,
        {
            "$ref": "#/$defs/Tree",
            "$defs": {
                "Point": POINT,
                "Tree": {
                    "type": "object",
                    "properties": {
                        "value": {"$ref": "#/$defs/Point"},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                    },
                    "required": ["value"],
                    "additionalProperties": False,
                },
            },
        },
        {"value": {"x": 1}, "children": [{"value": {"x": 2, "y": 3}}]},
        Tree(Point(1), [Tree(Point(2, 3.0))]),
    ),
    (
        Movie,
        {
            "$ref": "#/$defs/Movie",
            "$defs": {
                "Movie": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "year": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    },
                    "required": [],
                    "additionalProperties": False,
                }
            },
        },
        {"title": "a"},
        {"title": "a"},
    ),
]


@pytest.mark.parametrize(("kind", "schema", "value", "expected"), CASES, ids=lambda value: str(value)[:30])
def test_types(kind: Any, schema: dict[str, Any], value: Any, expected: Any) -> None:
    assert json_schema(kind) == schema
    found = parse(kind, json.dumps(value))
    assert found == expected
    assert type(found) is type(expected)


def test_nested() -> None:
    found = parse(Library, '{"movies": [{"title": "a", "year": null}], "best": {"x": 1}}')
    assert found == {"movies": [{"title": "a", "year": None}], "best": Point(1)}
    assert list(json_schema(Library)["$defs"]) == ["Library", "Movie", "Point"]


def test_models_of_pydantic() -> None:
    """Their own schema and their own check, alone and inside of other types; pydantic is not imported."""
    assert json_schema(Model) == Model.model_json_schema()
    assert parse(Model, '{"name": "a"}').name == "a"
    inside = json_schema(list[Model])
    assert inside == {
        "type": "array",
        "items": {"type": "object", "properties": {"name": {"$ref": "#/$defs/N"}}},
        "$defs": {"N": {"type": "string"}},
    }
    assert parse(list[Model], '[{"name": "a"}]')[0].name == "a"


def test_schemas_are_taken_as_they_are() -> None:
    schema = {"type": "object", "anything": 1}
    assert json_schema(schema) == schema
    assert parse(schema, '{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize("kind", [complex, dict[int, str], b"x", 3, object(), list[complex], Point(1), bytes])
def test_types_that_json_does_not_have(kind: Any) -> None:
    with pytest.raises(TypeError, match="JSON"):
        json_schema(kind)


def test_annotations_that_cannot_be_resolved() -> None:
    @dataclasses.dataclass
    class Hidden:
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"Hidden.*Nowhere"):
        json_schema(Hidden)


def test_two_classes_of_one_name() -> None:
    other: Any = dataclasses.make_dataclass("Point", [("z", int)])
    with pytest.raises(TypeError, match="two classes named Point"):
        json_schema(tuple[Point, other])


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        (int, '"a"', "the answer: expected int"),
        (int, "true", "expected int"),
        (int, "1.5", "expected int"),
        (str, "1", "expected str"),
        (list[int], '[1, "a"]', r"the answer\[1\]: expected int"),
        (dict[str, int], '{"a": null}', r"the answer\.a: expected int"),
        (Point, '{"y": 1}', "keys of Point"),
        (Point, '{"x": 1, "z": 1}', "keys of Point"),
        (Tree, '{"value": {"x": "a"}}', r"the answer\.value\.x"),
        (Literal["a"], '"b"', "expected one of"),
        (Literal[1], "true", "expected one of"),
        (Colour, '"green"', "green"),
        (tuple[int, int], "[1]", "expected 2 items"),
        (int | None, '"a"', "expected"),
        (datetime.date, '"yesterday"', "expected date"),
        (datetime.date, "1", "expected date"),
        (int, "{", "Expecting"),
        (list, "[" * 100_000, "nested too deep|Expecting"),
    ],
)
def test_what_does_not_fit_names_the_place(kind: Any, text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        parse(kind, text)


def test_construct_takes_what_json_gave() -> None:
    assert construct(list[Point], [{"x": 1}]) == [Point(1)]


@pytest.mark.parametrize(
    ("grammar", "kind"),
    [
        ('root ::= "a"', "gbnf"),
        ('# a: comment\nroot ::= "a: b"', "gbnf"),
        ("root ::= x\nx ::= [a-z]+", "gbnf"),
        ('start: "a" | "b"', "lark"),
        ('%ignore " "\nstart: "::=" X\nX: /[a-z]/', "lark"),
        ("?start: x\nx.2: /a/", "lark"),
        ('start[stop="x"]: /a/', "lark"),
        (fastq.Lark('x ::= "a"'), "lark"),
    ],
)
def test_notations_are_told_apart(grammar: str, kind: str) -> None:
    options: dict[str, Any] = {"grammar": grammar, "seed": 1}
    assert constrain(options) is None
    assert options == {"grammar": (kind, grammar), "seed": 1}
    assert type(options["grammar"][1]) is str


def test_constraints() -> None:
    options: dict[str, Any] = {"schema": list[int], "regex": None}
    assert constrain(options) == list[int]
    assert options == {"grammar": ("json_schema", '{"type": "array", "items": {"type": "integer"}}')}
    options = {"choices": ("a", "b")}
    constrain(options)
    assert options == {"grammar": ("choices", ["a", "b"])}
    with pytest.raises(ValueError, match="found schema and regex"):
        constrain({"schema": int, "regex": "a"})
    with pytest.raises(ValueError, match="neither"):
        constrain({"grammar": "hello"})
    with pytest.raises(TypeError, match="schema: JSON has no"):
        constrain({"schema": complex})


def answer(text: str, reason: Any, schema: Any) -> Completion:
    return Completion(text, [], reason, Usage(1, 0), Timings(0, 0, 0, 0, 0, 0), 0, schema=schema)


def test_parsed() -> None:
    assert answer('{"x": 1}', "stop", Point).parsed == Point(1)
    assert answer('{"x": 1}', "length", Point).parsed == Point(1), "whole, although the tokens ended with it"
    with pytest.raises(ValueError, match="cut off by max_tokens"):
        answer('{"x": ', "length", Point).parsed  # noqa: B018
    with pytest.raises(ValueError, match=r"cut off by cancel\(\)"):
        answer("", "cancelled", Point).parsed  # noqa: B018
    with pytest.raises(ValueError, match="no schema"):
        answer("{}", "stop", None).parsed  # noqa: B018
    assert json.loads(json.dumps(answer("1", "stop", int).to_dict()))["text"] == "1"
