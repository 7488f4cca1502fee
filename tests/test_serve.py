"""The server with the clients that people use: each as its own documentation says, with SmolLM2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Server, serving

# What the clients warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

QUESTION = "Where is the Eiffel Tower?"
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Tells the weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[Server]:
    with serving(smollm2) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(text: str = QUESTION) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_openai_chat(client: Any) -> None:
    answer = client.chat.completions.create(model="any", messages=ask(), temperature=0, max_tokens=40)
    text = answer.choices[0].message.content
    assert "Paris" in text
    assert (answer.model, answer.choices[0].message.role) == ("smollm2", "assistant")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    stream = client.chat.completions.create(
        model="any", messages=ask(), temperature=0, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    # The second time the prompt was computed before.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0


def test_openai_errors(client: Any) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.BadRequestError, match="temperature must be a number from 0 to 2, found 5") as error:
        client.chat.completions.create(model="any", messages=ask(), temperature=5)
    assert error.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="any", messages=ask("word " * 20_000))
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    assert [model.id for model in client.models.list()] == ["smollm2"]


def test_openai_completions(client: Any) -> None:
    answer = client.completions.create(
        model="any", prompt="The capital of France is", temperature=0, max_tokens=3, echo=True
    )
    assert answer.choices[0].text.startswith("The capital of France is Paris")
    stream = client.completions.create(
        model="any", prompt=["1, 2, 3,", "A, B, C,"], temperature=0, max_tokens=6, stream=True
    )
    texts = ["", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert "4" in texts[0]
    assert "D" in texts[1]


def test_openai_schema(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(
        model="any", messages=ask("Invent a person."), temperature=0, max_tokens=100, response_format=form
    )
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age"}
    assert 0 <= person["age"] <= 150
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Person", name=(str, pydantic.Field(max_length=20)), age=(int, pydantic.Field(ge=0, le=150))
    )
    parsed = client.chat.completions.parse(
        model="any", messages=ask("Invent a person."), temperature=0, max_tokens=100, response_format=model
    )
    assert isinstance(parsed.choices[0].message.parsed, model)
    response = client.responses.parse(
        model="any", input="Invent a person.", temperature=0, max_output_tokens=100, text_format=model
    )
    assert isinstance(response.output_parsed, model)


def test_openai_tools(client: Any) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    question = ask("What is the weather in Paris?")
    answer = client.chat.completions.create(
        model="any", messages=question, tools=tools, tool_choice="required", temperature=0, max_tokens=100
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    with client.chat.completions.stream(
        model="any", messages=question, tools=tools, tool_choice="required", temperature=0, max_tokens=100
    ) as stream:
        for _ in stream:
            pass
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert (streamed.id, streamed.function.arguments) == (call.id, call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 24 degrees"}
    more = client.chat.completions.create(
        model="any", messages=[*question, answer.choices[0].message, result], tools=tools, temperature=0, max_tokens=60
    )
    assert more.choices[0].finish_reason in ("stop", "length", "tool_calls")

    response = client.responses.create(
        model="any",
        input="What is the weather in Paris?",
        tools=[{"type": "function", **WEATHER}],
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=0,
        max_output_tokens=100,
    )
    assert [item.type for item in response.output] == ["function_call"]
    output = {"type": "function_call_output", "call_id": response.output[0].call_id, "output": "Sunny"}
    more = client.responses.create(model="any", input=[output], previous_response_id=response.id, max_output_tokens=30)
    assert more.output[0].type == "message"


def test_openai_logprobs(client: Any) -> None:
    answer = client.chat.completions.create(
        model="any", messages=ask(), temperature=0, max_tokens=10, logprobs=True, top_logprobs=2
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    # Without randomness the most likely token is taken.
    assert all(token.token == token.top_logprobs[0].token and token.logprob <= 0 for token in tokens)


def test_openai_embeddings(client: Any) -> None:
    texts = ["The cat sat on the mat.", "A cat lay on a rug.", "Interest rates rose by half a percent."]
    vectors = [item.embedding for item in client.embeddings.create(model="any", input=texts).data]
    floats = client.embeddings.create(model="any", input=texts, encoding_format="float")
    assert [item.embedding for item in floats.data] == vectors
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far


def test_openai_responses(client: Any) -> None:
    answer = client.responses.create(
        model="any", input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=40
    )
    assert "Paris" in answer.output_text
    events = list(
        client.responses.create(
            model="any", input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=40, stream=True
        )
    )
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == answer.output_text
    assert events[-1].response.output_text == answer.output_text
    more = client.responses.create(
        model="any", input="And the Colosseum?", previous_response_id=answer.id, temperature=0, max_output_tokens=40
    )
    assert more.usage.input_tokens > answer.usage.total_tokens - 10
    with client.responses.stream(model="any", input=QUESTION, temperature=0, max_output_tokens=60) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text


def test_llm(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    models = tmp_path / "extra-openai-models.yaml"
    models.write_text(f"- model_id: mine\n  model_name: smollm2\n  api_base: {server.url}/v1\n")
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for more in ([], ["--no-stream"]):
        command = [
            sys.executable,
            "-m",
            "llm",
            "-m",
            "mine",
            "-o",
            "temperature",
            "0",
            "-o",
            "max_tokens",
            "40",
            *more,
            QUESTION,
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Paris" in done.stdout


def test_langchain(server: Server) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(model="any", base_url=f"{server.url}/v1", api_key="none", temperature=0, max_tokens=40)
    answer = chat.invoke(QUESTION)
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == answer.content
    embeddings = langchain.OpenAIEmbeddings(
        model="any", base_url=f"{server.url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_query("a text")) == 576
    person = chat.with_structured_output(PERSON | {"title": "Person"}, method="json_schema").invoke("Invent a person.")
    assert set(person) == {"name", "age"}
    called = chat.bind_tools([{"type": "function", "function": WEATHER}], tool_choice="get_weather").invoke(
        "Weather in Paris?"
    )
    assert [call["name"] for call in called.tool_calls] == ["get_weather"]


def test_llama_index(server: Server) -> None:
    like = pytest.importorskip("llama_index.llms.openai_like")
    from llama_index.core.llms import ChatMessage

    model = like.OpenAILike(
        model="any",
        api_base=f"{server.url}/v1",
        api_key="none",
        is_chat_model=True,
        context_window=8192,
        temperature=0,
        max_tokens=40,
    )
    answer = model.chat([ChatMessage(role="user", content=QUESTION)])
    assert "Paris" in answer.message.content
    streamed = list(model.stream_chat([ChatMessage(role="user", content=QUESTION)]))
    assert streamed[-1].message.content == answer.message.content
    text = like.OpenAILike(
        model="any", api_base=f"{server.url}/v1", api_key="none", is_chat_model=False, max_tokens=3, temperature=0
    )
    assert "Paris" in text.complete("The capital of France is").text
