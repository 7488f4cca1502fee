"""Sessions: the answers of chat, with only the new tokens computed; two ways, files, streams."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastq
from conftest import SMALL, Make

OPTIONS: dict[str, Any] = {"seed": 3, "max_tokens": 6, "ignore_eos": True}
KINDS: list[dict[str, Any]] = [
    {},
    {"architecture": "gemma3", "layers": 6, "window": 16},
    {"architecture": "lfm2", "layers": 4},
]


@pytest.fixture(scope="module", params=KINDS, ids=["full", "window", "state"])
def path(request: pytest.FixtureRequest, make: Make) -> Path:
    """Models that remember in different ways."""
    return make(format="Q8_0", **{**SMALL, "context": 512, **request.param})


def test_answers_are_those_of_chat(path: Path) -> None:
    """And a turn computes its own tokens only."""
    with fastq.Model(path, threads=2) as m:
        session = m.session(system="short", **OPTIONS)
        messages: list[dict[str, Any]] = [{"role": "system", "content": "short"}]
        before = 0
        for turn, text in enumerate(["first question", "second one", "and a third"]):
            messages.append({"role": "user", "content": text})
            expected = m.chat(messages, **OPTIONS)
            answer = session.say(text)
            assert answer.tokens == expected.tokens
            messages.append(answer.message)
            assert session.messages == messages
            if turn:
                # All but what the template puts behind the last answer, and its end.
                assert answer.usage.cached_tokens >= before - 8
            before = answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert session.cached_tokens > 0


def test_forks_do_not_disturb_each_other(path: Path) -> None:
    with fastq.Model(path, threads=2) as m:
        one = m.session(**OPTIONS)
        one.say("first question")
        two = one.fork()
        left, right = one.say("left"), two.say("right")
        start = one.messages[:2]
        assert left.tokens == m.chat([*start, {"role": "user", "content": "left"}], **OPTIONS).tokens
        assert right.tokens == m.chat([*start, {"role": "user", "content": "right"}], **OPTIONS).tokens
        assert [len(s.messages) for s in (one, two)] == [4, 4]


def test_files(path: Path, tmp_path: Path) -> None:
    """A conversation goes on where it was saved, in another process, with the same bits."""
    file = tmp_path / "talk.kv"
    program = (
        "import sys, fastq\n"
        "m = fastq.Model(sys.argv[1], threads=2)\n"
        "s = m.session(seed=3, max_tokens=6, ignore_eos=True).load(sys.argv[2])\n"
        "answer = s.say('second one')\n"
        "print(answer.tokens, answer.usage.cached_tokens > 10)"
    )
    with fastq.Model(path, threads=2) as m:
        session = m.session(**OPTIONS)
        session.say("first question about something")
        session.save(file)
        expected = session.say("second one").tokens
    found = subprocess.run(
        [sys.executable, "-c", program, path, file], capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout.strip() == f"{expected} True"


def test_files_of_another_model(path: Path, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "talk.kv"
    with fastq.Model(path, threads=2) as m:
        session = m.session(**OPTIONS)
        session.say("a")
        session.save(file)
        data = file.read_bytes()
        broken = tmp_path / "broken.kv"
        broken.write_bytes(data[: len(data) // 2])
        with pytest.raises(fastq.SessionError, match=r"broken\.kv"):
            session.load(broken)
        assert len(session.messages) == 2, "a file that is refused changes nothing"
        with pytest.raises(FileNotFoundError):
            session.load(tmp_path / "none.kv")
    with fastq.Model(make(format="Q8_0", **{**SMALL, "layers": 3})) as other, pytest.raises(fastq.SessionError):
        other.session().load(file)


def test_streams(model: fastq.Model) -> None:
    session, whole = model.session(**OPTIONS), model.session(**OPTIONS)
    expected = whole.say("first question")
    assert "".join(session.stream("first question")) == expected.text
    assert session.messages == whole.messages
    stream = session.stream("second one", max_tokens=100)
    next(stream)
    for refused in (lambda: session.say("x"), session.fork, session.reset, lambda: session.stream("x")):
        with pytest.raises(ValueError, match="the session is answering"):
            refused()
    stream.cancel()
    assert [message["role"] for message in session.messages] == ["user", "assistant"] * 2
    assert session.messages[-1]["content"] == stream.result.text
    next(session.stream("third", max_tokens=100))
    gc.collect()
    assert len(session.messages) == 6, "a stream that is dropped ends its turn"
    assert session.say("fourth").usage.cached_tokens > 20


def test_errors_change_nothing(model: fastq.Model) -> None:
    session = model.session(**OPTIONS)
    session.say("first question")
    before = session.messages
    with pytest.raises(ValueError, match="top_p"):
        session.say("x", top_p=3)
    with pytest.raises(ValueError, match="top_p"):
        list(session.stream("x", top_p=3))
    with pytest.raises(fastq.ContextOverflowError):
        session.say("word " * 2000)

    def fail(text: str) -> bool:
        raise LookupError(text)

    with pytest.raises(LookupError):
        session.say("x", stop_when=fail)
    with pytest.raises(LookupError):
        list(session.stream("x", stop_when=fail))
    assert session.messages == before
    assert session.say("second one").finish_reason == "length"
    session.reset(system="new")
    assert session.messages == [{"role": "system", "content": "new"}]


def test_prompt_cache(make: Make, tmp_path: Path) -> None:
    """A second process does not compute the same beginning again."""
    path = make(format="Q8_0", **{**SMALL, "context": 1024})
    program = (
        "import sys, fastq\n"
        "m = fastq.Model(sys.argv[1], threads=2, prompt_cache=sys.argv[2])\n"
        "messages = [{'role': 'system', 'content': 'word ' * 150}, {'role': 'user', 'content': sys.argv[3]}]\n"
        "r = m.chat(messages, max_tokens=4, seed=1, ignore_eos=True)\n"
        "print(r.usage.cached_tokens, r.usage.prompt_tokens, r.tokens)"
    )

    def ask(text: str, cache: Path) -> tuple[int, int, str]:
        command = [sys.executable, "-c", program, str(path), str(cache), text]
        out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        cached, prompt, tokens = out.strip().split(" ", 2)
        return int(cached), int(prompt), tokens

    cache = tmp_path / "cache"
    cached, prompt, _ = ask("one", cache)
    assert (cached, prompt > 150) == (0, True)
    cached, prompt, tokens = ask("two", cache)
    assert cached >= 0.95 * (prompt - 10)
    assert tokens == ask("two", tmp_path / "other")[2]
