"""The interface of llama-cpp-python against the original: shapes, texts, prompts and arguments as it gave them
(tests/reference/llama_cpp.json, written by tests/peers/llama_cpp_shapes.py), and programs that were written for it.
"""

from __future__ import annotations

import inspect
import json
import logging
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat import cases
from fastq.compat import llama_cpp
from fastq.compat.llama_cpp import Llama, LlamaGrammar, _arguments, _log, llama_chat_format, llama_speculative
from fastq.compat.llama_cpp import llama_types as compat_types

HERE = Path(__file__).resolve().parent
ORIGINAL: dict[str, Any] = json.loads((HERE / "reference" / "llama_cpp.json").read_text())


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Iterator[Llama]:
    with Llama(str(smollm2), n_ctx=512, seed=1, verbose=False) as model:
        yield model


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    _log._told.clear()
    caplog.set_level(logging.INFO, logger="fastq")
    return caplog


def same_types(ours: Any, theirs: Any, where: str = "") -> None:
    """As the original, with more allowed in one way: kinds of items that a list has only in some answers."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            same_types(ours[key], theirs[key], f"{where}.{key}")
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("name", cases.SHAPES)
def test_answers_have_the_shapes_of_the_original(name: str, smollm2: Path) -> None:
    answer = cases.shape_of(cases.SHAPES[name](llama_cpp, str(smollm2)))
    same_types(answer, ORIGINAL["shapes"][name], name)


@pytest.mark.parametrize("name", cases.VECTORS)
def test_vectors_have_the_shapes_of_the_original(name: str, minilm: Path) -> None:
    assert cases.shape_of(cases.VECTORS[name](llama_cpp, str(minilm))) == ORIGINAL["shapes"][name]


@pytest.mark.parametrize("what", ["text", "facts"])
def test_tokens_bytes_and_facts_are_those_of_the_original(what: str, real: tuple[str, Path]) -> None:
    name, path = real
    ours = json.loads(json.dumps(getattr(cases, what)(llama_cpp, str(path))))
    assert ours == ORIGINAL[what][name]


@pytest.mark.parametrize("name", cases.FORMATS)
def test_chat_formats_write_the_prompts_of_the_original(name: str) -> None:
    for messages, theirs in zip(cases.CONVERSATIONS, ORIGINAL["prompts"][name], strict=True):
        ours, stop = cases.prompt(llama_chat_format, name, messages)
        if name == "llama-3" and messages[0]["role"] != "system":
            assert theirs[0].endswith(ours)
        assert [ours, stop] == theirs


def test_every_argument_of_the_original_is_known_with_its_default() -> None:
    theirs = {name: default for name, default in ORIGINAL["arguments"].items() if name != "model_path"}
    assert {name: repr(default) for name, default in _arguments.DEFAULTS.items()} == theirs
    for name, parameters in ORIGINAL["signatures"].items():
        ours = cases.signature(getattr(Llama, name))
        assert list(ours) == list(parameters), name
        # None is a safer default than a list, and means the same.
        differing = {key for key in ours if ours[key] != parameters[key]}
        assert differing <= {"stop"}, (name, differing)


def test_the_types_have_their_names() -> None:
    assert [name for name in ORIGINAL["types"] if not hasattr(compat_types, name)] == []
    assert inspect.isclass(llama_cpp.CreateCompletionResponse)


# Programs

MODULE = "fastq.compat.llama_cpp"


def changed(source: str, model: str, encoder: str) -> str:
    """A program with the import of fastq and the paths of models that are there: nothing else."""
    lines = []
    for line in source.splitlines():
        if line == "import llama_cpp":
            line = f"import {MODULE} as llama_cpp"
        elif line.startswith("from llama_cpp"):
            line = line.replace("from llama_cpp", f"from {MODULE}", 1)
        lines.append(line)
    text = "\n".join(lines)
    text = re.sub(r'"[^"\s]*embedding-model\.gguf"', repr(encoder), text)
    return re.sub(r'(?<=model_path=)"[^"\s]*\.gguf"|(?<=Llama\()"[^"\s]*\.gguf"', repr(model), text)


def text_of(names: dict[str, Any], key: str) -> str:
    return str(names[key]["choices"][0]["message"]["content"])


def is_listed(out: str) -> bool:
    lines = out.splitlines()
    return len(lines) == 3 and all(re.fullmatch(r"- [a-zA-Z ]{1,20}", line) for line in lines)


Check = Callable[[dict[str, Any], str], bool]
EXPECTED: dict[str, Check] = {
    "cache": lambda names, out: out.strip() == "Paris",
    "chatbot": lambda names, out: [m["role"] for m in names["history"]] == ["system", *["user", "assistant"] * 2],
    "docstring_generate": lambda names, out: out.count("b'") + out.count('b"') >= 8,
    "eval_sample": lambda names, out: out.startswith(" Paris.") and out.splitlines()[-1].endswith("True"),
    "gpu": lambda names, out: "'role': 'assistant'" in out,
    "grammar_list": lambda names, out: is_listed(out),
    "grammar_schema": lambda names, out: (
        names["person"].keys() == {"name", "age", "job"} and names["person"]["job"] in ("engineer", "teacher", "artist")
    ),
    "langchain": lambda names, out: out.startswith(" Paris.") and out.splitlines()[-1] == "2 384",
    "logit_bias": lambda names, out: out == " Rome\n",
    "logits_processor": lambda names, out: "Paris" not in out and names["out"]["usage"]["completion_tokens"] >= 4,
    "logprobs": lambda names, out: len(names["top"]) == 5 and out.startswith("' Paris'"),
    "openai_v1": lambda names, out: names["answer"].object == "chat.completion" and len(out) > 10,
    "perplexity": lambda names, out: 1 < names["perplexity"] < 100,
    "readme_chat": lambda names, out: out == "",
    "readme_completion": lambda names, out: names["output"]["choices"][0]["text"].startswith("Q: Name the planets"),
    "readme_context": lambda names, out: names["llm"].n_ctx() == 2048,
    "readme_embeddings": lambda names, out: [len(d["embedding"]) for d in names["embeddings"]["data"]] == [576, 576],
    "readme_from_pretrained": lambda names, out: names["llm"].n_vocab() == 49152,
    "readme_function_calling": lambda names, out: True,
    "readme_json": lambda names, out: True,
    "readme_json_schema": lambda names, out: True,
    "readme_speculative": lambda names, out: names["llama"]("1 2 3 1 2 3", max_tokens=4)["usage"]["completion_tokens"]
    == 4,
    "similarity": lambda names, out: out == "Stocks fell sharply on Monday.\n",
    "state": lambda names, out: out == "[' Paris', ' Rome']\n",
    "stopping_criteria": lambda names, out: out == "5 stop\n",
    "stream": lambda names, out: "Paris" in out,
    "tools": lambda names, out: isinstance(names["arguments"]["city"], str),
}
"""What a program must have printed, or left in its variables. Those of the README that leave nothing are looked at by
the answers they got.
"""

LISTINGS = sorted(path.stem.removeprefix("listing_") for path in (HERE / "compat").glob("listing_*.py"))


def test_every_program_is_looked_at() -> None:
    assert sorted(EXPECTED) == LISTINGS


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, smollm2: Path) -> list[dict[str, Any]]:
    """A client of the hub that has the model, and keeps what it was asked for."""
    asked: list[dict[str, Any]] = []

    class HfFileSystem:
        def ls(self, repo: str, recursive: bool) -> list[Any]:
            return [{"name": f"{repo}/{name}"} for name in ("README.md", "model-Q4_0.gguf", "sub/model-Q8_0.gguf")]

    def hf_hub_download(**arguments: Any) -> str:
        asked.append(arguments)
        return str(smollm2)

    client = types.ModuleType("huggingface_hub")
    utils = types.ModuleType("huggingface_hub.utils")
    client.HfFileSystem, client.hf_hub_download = HfFileSystem, hf_hub_download  # type: ignore[attr-defined]
    utils.validate_repo_id = lambda repo: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    return asked


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the chats of a program answered."""
    kept: list[Any] = []
    original = Llama.create_chat_completion

    def create_chat_completion(self: Llama, *args: Any, **arguments: Any) -> Any:
        answer = original(self, *args, **arguments)
        kept.append(answer)
        return answer

    monkeypatch.setattr(Llama, "create_chat_completion", create_chat_completion)
    return kept


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", LISTINGS)
def test_programs_run_with_nothing_changed_but_the_import(
    name: str,
    smollm2: Path,
    minilm: Path,
    hub: list[dict[str, Any]],
    answers: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "langchain":
        pytest.importorskip("langchain_community", reason="langchain_community is not installed")
        # It imports llama_cpp itself, so that the module takes that name.
        monkeypatch.setitem(sys.modules, "llama_cpp", llama_cpp)
    if name == "openai_v1":
        pytest.importorskip("openai", reason="openai is not installed")
    typed = iter(["What is the capital of France?", "And of Italy?", "exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    # Programs draw at random; here each run draws the same.
    monkeypatch.setitem(_arguments.DEFAULTS, "seed", 1)
    source = (HERE / "compat" / f"listing_{name}.py").read_text()
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(changed(source, str(smollm2), str(minilm)), name, "exec"), names)
    out = capsys.readouterr().out
    assert EXPECTED[name](names, out), out
    if name.startswith("readme_json"):
        said = json.loads(answers[0]["choices"][0]["message"]["content"])
        assert "schema" not in name or isinstance(said["team_name"], str)
    if name == "readme_chat":
        # A model that was not made for the format may end at once.
        assert isinstance(answers[0]["choices"][0]["message"]["content"], str)
    if name == "readme_function_calling":
        call = answers[0]["choices"][0]["message"]["tool_calls"][0]["function"]
        assert call["name"] == "UserDetail"
        assert json.loads(call["arguments"]).keys() == {"name", "age"}
    if name == "readme_from_pretrained":
        assert [(a["filename"], a["subfolder"]) for a in hub] == [("model-Q8_0.gguf", "sub")]


# What is refused, accepted and told


def test_errors_are_those_that_programs_catch(smollm2: Path, tmp_path: Path, llm: Llama) -> None:
    with pytest.raises(ValueError, match=r"Model path does not exist: nowhere\.gguf"):
        Llama(model_path="nowhere.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    with pytest.raises(ValueError, match="Failed to load model from file"):
        Llama(model_path=str(broken))
    with pytest.raises(ValueError, match=r"Requested tokens \(600\) exceed context window of 512"):
        llm([504] * 600)
    stream = llm([504] * 600, stream=True)
    with pytest.raises(ValueError, match="exceed context window"):
        next(stream)
    with pytest.raises(ValueError, match="exceed context window"):
        llm.create_chat_completion([{"role": "user", "content": "word " * 600}])
    with pytest.raises(ValueError, match="exceed context window"):
        llm.eval([504] * 600)
    with pytest.raises(RuntimeError, match="embedding=True"):
        llm.embed("x")
    with pytest.raises(TypeError, match="expected bytes, found str"):
        llm.tokenize("text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        llm.detokenize([49152])
    with pytest.raises(ValueError, match="no tokens for filling in"):
        llm("def f(", suffix="return x")
    with pytest.raises(ValueError, match="Tool choice 'b' not found"):
        llm.create_chat_completion(
            cases.QUESTION, tools=[cases.TOOL], tool_choice={"type": "function", "function": {"name": "b"}}
        )
    with pytest.raises(ValueError, match="response_format"):
        llm.create_chat_completion(cases.QUESTION, response_format={"type": "yaml"})
    with pytest.raises(NotImplementedError, match="text only"):
        llm.create_chat_completion([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lora_path": "adapter.gguf"}, "adapters are not supported"),
        ({"kv_overrides": {"a": 1}}, "kv_overrides"),
        ({"spm_infill": True}, "spm_infill"),
        ({"rope_freq_base": 500000.0}, "the model's own 100000"),
        ({"rope_freq_scale": 0.5}, "the model's own 1"),
        ({"rope_scaling_type": 1}, "rope_scaling_type"),
        ({"yarn_orig_ctx": 2048}, "yarn_orig_ctx"),
        ({"attention_type": 1}, "attention_type"),
        ({"pooling_type": 4}, "rerank"),
        ({"type_k": 2, "type_v": 2}, "the cache stores"),
        ({"type_k": 8}, "must be the same"),
        ({"chat_format": "functionary-v2"}, "chatml-function-calling"),
    ],
)
def test_what_would_change_answers_is_refused(smollm2: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        Llama(model_path=str(smollm2), **arguments)


def test_unknown_values_are_refused(smollm2: Path) -> None:
    with pytest.raises(ValueError, match="pooling_type"):
        Llama(model_path=str(smollm2), pooling_type=9)
    with pytest.raises(llama_chat_format.LlamaChatCompletionHandlerNotFoundException, match=r"nothing.*chatml"):
        Llama(model_path=str(smollm2), chat_format="nothing")
    with pytest.raises(NotImplementedError, match="text only"):
        llama_chat_format.Llava15ChatHandler(clip_model_path="mmproj.bin")


def test_gpu_options_are_told_once(smollm2: Path, log: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        Llama(model_path=str(smollm2), n_gpu_layers=-1, main_gpu=1, numa=True, n_parts=1, n_ctx=64).close()
    told = [r.getMessage() for r in log.records if r.getMessage().startswith("llama_cpp:")]
    assert len(told) == 3
    assert sum("n_gpu_layers, main_gpu" in text for text in told) == 1
    assert sum("numa" in text for text in told) == 1
    assert sum("n_parts" in text for text in told) == 1


def test_defaults_of_early_versions_do_not_spoil_a_model(smollm2: Path, log: pytest.LogCaptureFixture) -> None:
    with Llama(model_path=str(smollm2), rope_freq_base=10000.0, rope_freq_scale=1.0, n_ctx=64) as model:
        assert model("The capital of France is", max_tokens=1, temperature=0)["choices"][0]["text"] == " Paris"
    assert "the model's own 100000 is used" in log.text


def test_nothing_is_printed(smollm2: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Llama(model_path=str(smollm2), verbose=True, n_gpu_layers=20, n_ctx=64)("Hi", max_tokens=1)
    assert capfd.readouterr() == ("", "")


# Answers


def test_a_stream_joins_to_the_whole_and_seeds_repeat(llm: Llama) -> None:
    whole = llm("Once upon a time", max_tokens=12, seed=5)
    chunks = list(llm("Once upon a time", max_tokens=12, seed=5, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0] == {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert llm("Once upon a time", max_tokens=12, seed=6)["choices"] != whole["choices"]
    llm.set_seed(9)
    first = [llm("Once", max_tokens=6)["choices"][0]["text"] for _ in range(2)]
    llm.set_seed(9)
    assert [llm("Once", max_tokens=6)["choices"][0]["text"] for _ in range(2)] == first
    assert first[0] != first[1]


def test_generate_sample_and_completion_agree(llm: Llama) -> None:
    prompt = llm.tokenize(b"Once upon a time")
    text = llm(prompt, max_tokens=8, seed=3, temperature=0.9)["choices"][0]["text"]
    llm.set_seed(3)
    tokens = []
    for token in llm.generate(prompt, temp=0.9):
        tokens.append(token)
        if len(tokens) == 8:
            break
    assert llm.detokenize(tokens).decode() == text
    llm.reset()
    llm.eval(prompt)
    for token in tokens:
        assert llm.sample(temp=0.9) == token
        llm.eval([token])
    assert list(llm._input_ids) == prompt + tokens
    assert llm.sample(temp=0.9, idx=len(prompt) - 1) == tokens[0]


def test_generate_takes_tokens_and_ends_by_criteria(llm: Llama) -> None:
    prompt = llm.tokenize(b"The capital of France is")
    running = llm.generate(prompt, temp=0.0)
    first = next(running)
    running.send(llm.tokenize(b" The capital of Italy is", add_bos=False))
    assert llm.detokenize(list(llm.eval_tokens)).decode() == "The capital of France is Paris The capital of Italy is"
    assert llm.detokenize([first]) == b" Paris"
    seen: list[tuple[int, int]] = []

    def third(ids: Any, logits: Any) -> bool:
        seen.append((len(ids), len(logits)))
        return len(seen) == 3

    assert len(list(llm.generate(prompt, temp=0.0, stopping_criteria=[third]))) == 2
    assert seen == [(len(prompt) + i, llm.n_vocab()) for i in range(3)]


def test_end_tokens_come_from_generate(llm: Llama) -> None:
    prompt = llm.tokenize(b"<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n", special=True)
    tokens: list[int] = []
    for token in llm.generate(prompt, temp=0.0):
        tokens.append(token)
        if token == llm.token_eos() or len(tokens) > 60:
            break
    assert tokens[-1] == llm.token_eos()


def test_shares_that_the_original_takes_and_seeds(llm: Llama) -> None:
    likeliest = llm("Once upon a time", max_tokens=4, temperature=0)["choices"]
    for argument in ({"top_p": 0.0}, {"top_p": -1.0}, {"top_k": 1}):
        assert llm("Once upon a time", max_tokens=4, temperature=1.5, seed=2, **argument)["choices"] == likeliest
    free: dict[str, Any] = {"max_tokens": 6, "temperature": 2.0, "top_k": -1, "min_p": 0.0}
    assert llm("Once", seed=0, **free)["choices"] == llm("Once", seed=0, **free)["choices"]
    assert len({llm("Once", seed=-1, **free)["choices"][0]["text"] for _ in range(4)}) > 1
    raw = [llm("Once", seed=3, max_tokens=6, temperature=temperature, top_k=1) for temperature in (0.5, -1.0)]
    assert raw[0]["choices"] != raw[1]["choices"]
    with pytest.raises(ValueError, match="mirostat_mode"):
        llm("Once", mirostat_mode=3)
    miro: dict[str, Any] = {"max_tokens": 6, "mirostat_tau": 9.0, "seed": 4}
    assert llm("Once", mirostat_mode=2, **miro)["choices"] != llm("Once", mirostat_mode=0, **miro)["choices"]


def test_a_context_beyond_learned_positions_is_cut(minilm: Path, log: pytest.LogCaptureFixture) -> None:
    with Llama(model_path=str(minilm), n_ctx=2048, embedding=True, verbose=False) as model:
        assert model.n_ctx() == 512
        vector, count = model.embed("word " * 2000, return_count=True)
        assert (len(vector), count) == (384, 512)
        with pytest.raises(ValueError, match="exceed batch size"):
            model.embed("word " * 2000, truncate=False)
        short = np.array(model.embed("A short text.", normalize=True))
        assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
        assert not np.allclose(model.embed("A short text."), short)
    assert "the model has 512 positions" in log.text


def test_messages_in_parts(llm: Llama) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2+2?"}]
    answers = [
        llm.create_chat_completion([{"role": "user", "content": content}], max_tokens=4, temperature=0)
        for content in (parts, "What is 2+2?")
    ]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_max_tokens_that_is_not_above_zero_fills_the_context(smollm2: Path) -> None:
    with Llama(model_path=str(smollm2), n_ctx=24, verbose=False) as model:
        for unlimited in (None, 0, -1):
            answer = model("One two three one two three", max_tokens=unlimited, temperature=0, logit_bias={2: -100.0})
            assert answer["usage"]["total_tokens"] == 24
            assert answer["choices"][0]["finish_reason"] == "length"


def test_state_and_model_can_be_pickled(smollm2: Path) -> None:
    model = Llama(model_path=str(smollm2), n_ctx=64, seed=4, verbose=False)
    model.eval(model.tokenize(b"The capital of France is"))
    scores = model.scores.copy()
    state = pickle.loads(pickle.dumps(model.save_state()))
    other: Llama = pickle.loads(pickle.dumps(model))
    assert other.n_ctx() == 64
    assert other.n_tokens == 0
    other.load_state(state)
    assert other.n_tokens == model.n_tokens == state.n_tokens
    assert np.array_equal(other.scores, scores)
    assert other.sample(temp=0.0) == model.sample(temp=0.0) == int(scores[-1].argmax())


def test_logprobs_are_those_of_the_logits(llm: Llama) -> None:
    prompt = llm.tokenize(b"The capital of France is")
    told = llm(prompt, max_tokens=2, temperature=0, logprobs=3)["choices"][0]["logprobs"]
    expected = Llama.logits_to_logprobs(llm.fastq_model.logits(prompt))
    assert told["tokens"] == [" Paris", "."]
    assert told["token_logprobs"][0] == pytest.approx(float(expected.max()), abs=1e-4)
    assert sorted(told["top_logprobs"][0].values()) == pytest.approx(sorted(map(float, expected))[-3:], abs=1e-4)
    whole = llm("The capital of France is", max_tokens=1, temperature=0, logprobs=1, echo=True)["choices"][0][
        "logprobs"
    ]
    assert whole["tokens"] == ["The", " capital", " of", " France", " is", " Paris"]
    assert whole["token_logprobs"][0] is None
    assert whole["text_offset"] == [0, 3, 11, 14, 21, 24]
    after = Llama.logits_to_logprobs(llm.fastq_model.logits(prompt[:3]))
    assert whole["token_logprobs"][3] == pytest.approx(float(after[prompt[3]]), abs=1e-4)


def test_tools_of_the_template_are_called(llm: Llama) -> None:
    answer = llm.create_chat_completion(
        cases.ASKED, tools=[cases.TOOL], tool_choice=cases.CHOICE, max_tokens=64, temperature=0
    )["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"]).keys() == {"name", "age"}
    chunks = llm.create_chat_completion(
        cases.ASKED, tools=[cases.TOOL], tool_choice=cases.CHOICE, max_tokens=64, temperature=0, stream=True
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    written = "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if d.get("tool_calls"))
    assert written == answer["message"]["tool_calls"][0]["function"]["arguments"]
    assert {d["function_call"]["name"] for d in deltas if d.get("function_call")} == {"UserDetail"}
    plain = llm.create_chat_completion(cases.ASKED, tools=[cases.TOOL], tool_choice="none", max_tokens=4)
    assert isinstance(plain["choices"][0]["message"]["content"], str)


def test_function_calling_decides_for_itself(smollm2: Path) -> None:
    with Llama(model_path=str(smollm2), n_ctx=1024, chat_format="chatml-function-calling", verbose=False) as model:
        arguments: dict[str, Any] = {"tools": [cases.TOOL], "tool_choice": "auto", "max_tokens": 24, "temperature": 0}
        message = model.create_chat_completion(cases.ASKED, **arguments)["choices"][0]["message"]
        assert isinstance(message["content"], str) or message["tool_calls"]
        demanded = model.create_chat_completion(cases.ASKED, **{**arguments, "tool_choice": "required"})
        assert demanded["choices"][0]["finish_reason"] == "tool_calls"
        for call in demanded["choices"][0]["message"]["tool_calls"]:
            assert json.loads(call["function"]["arguments"]).keys() == {"name", "age"}


def test_own_handlers_and_formats(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_chat_format, "_handlers", dict(llama_chat_format._handlers))

    @llama_chat_format.register_chat_format("shout")
    def shout(*, messages: list[Any], **_: Any) -> llama_chat_format.ChatFormatterResponse:
        return llama_chat_format.ChatFormatterResponse(prompt=messages[-1]["content"].upper(), stop=["."])

    with Llama(model_path=str(smollm2), n_ctx=64, chat_format="shout", verbose=False) as model:
        model.create_chat_completion([{"role": "user", "content": "the capital of france is"}], max_tokens=3)
        assert model.detokenize(list(model.eval_tokens)).startswith(b"THE CAPITAL OF FRANCE IS")
    formatter = llama_chat_format.Jinja2ChatFormatter(
        template="{% for m in messages %}{{ m.content }}{% endfor %}",
        eos_token="</s>",
        bos_token="<s>",
        stop_token_ids=[2],
    )
    with Llama(model_path=str(smollm2), n_ctx=64, chat_handler=formatter.to_chat_handler(), verbose=False) as model:
        answer = model.create_chat_completion([{"role": "user", "content": "The capital of France is"}], max_tokens=2)
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert model.detokenize(list(model.eval_tokens)).startswith(b"The capital of France is")


def test_grammars_from_files_and_damaged_ones(llm: Llama, tmp_path: Path) -> None:
    file = tmp_path / "yes.gbnf"
    file.write_text('root ::= "yes" | "no"')
    grammar = LlamaGrammar.from_file(file)
    assert llm("Is the sky blue?", grammar=grammar, temperature=0)["choices"][0]["text"] in ("yes", "no")
    file.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        LlamaGrammar.from_file(file)
    with pytest.raises(ValueError, match="gbnf"):
        llm("x", grammar=LlamaGrammar.from_string("root ::= ("))
    with pytest.raises(ValueError, match="Expecting"):
        LlamaGrammar.from_json_schema("{")
    with pytest.raises(TypeError, match="LlamaGrammar"):
        llm("x", grammar="root ::= x")  # type: ignore[arg-type]


def test_objects_of_a_schema_have_no_other_keys() -> None:
    point = {"properties": {"x": {"type": "number"}, "properties": {"enum": [{"properties": {}}]}}}
    schema = {"$defs": {"point": point}, "items": [{"$ref": "#/$defs/point"}], "allOf": [{"properties": {}}]}
    found = LlamaGrammar.from_json_schema(json.dumps(schema))._schema
    shut = {**point, "additionalProperties": False}
    assert found == {**schema, "$defs": {"point": shut}}
    opened = {"properties": {}, "additionalProperties": True}
    assert LlamaGrammar.from_json_schema(json.dumps(opened))._schema == opened


def test_patterns_of_the_hub_match_one_file(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"Multiple files found in a/b that match \*\.gguf"):
        Llama.from_pretrained("a/b", "*.gguf")
    with pytest.raises(ValueError, match="No file found in a/b that match x"):
        Llama.from_pretrained("a/b", "x")
    assert hub == []


def test_prompt_lookup_guesses_what_followed() -> None:
    draft = llama_speculative.LlamaPromptLookupDecoding(max_ngram_size=2, num_pred_tokens=3)
    assert draft(np.array([1, 2, 3, 4, 1, 2])).tolist() == [3, 4, 1]
    assert draft(np.array([1, 2, 3])).tolist() == []
