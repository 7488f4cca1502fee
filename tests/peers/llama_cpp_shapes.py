"""Writes what llama-cpp-python answers to tests/compat/cases.py into tests/reference/llama_cpp.json.

    PATH_TO_PYTHON_WITH_LLAMA_CPP tests/peers/llama_cpp_shapes.py MODELS

MODELS is the folder with smollm2.gguf, gemma3.gguf and minilm.gguf. Written with llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Without this folder, whose llama_cpp.py is not the peer.
sys.path[0] = str(HERE.parent)

import llama_cpp  # noqa: E402
from llama_cpp import llama_chat_format, llama_types  # noqa: E402

from compat import cases  # noqa: E402


def main(models: Path) -> None:
    llm = str(models / "smollm2.gguf")
    shapes = {name: cases.shape_of(case(llama_cpp, llm)) for name, case in cases.SHAPES.items()}
    encoder = str(models / "minilm.gguf")
    shapes |= {name: cases.shape_of(case(llama_cpp, encoder)) for name, case in cases.VECTORS.items()}
    constructor = cases.signature(llama_cpp.Llama.__init__)
    record = {
        "version": llama_cpp.__version__,
        "shapes": shapes,
        "text": {name: cases.text(llama_cpp, str(models / f"{name}.gguf")) for name in ("smollm2", "gemma3")},
        "facts": {name: cases.facts(llama_cpp, str(models / f"{name}.gguf")) for name in ("smollm2", "gemma3")},
        "prompts": {
            name: [cases.prompt(llama_chat_format, name, messages) for messages in cases.CONVERSATIONS]
            for name in cases.FORMATS
        },
        "arguments": constructor,
        "signatures": {name: cases.signature(getattr(llama_cpp.Llama, name)) for name in cases.METHODS},
        "types": sorted(
            name for name in dir(llama_types) if name.startswith(("Chat", "Completion", "Create", "Embedding", "Json"))
        ),
    }
    out = HERE.parent / "reference" / "llama_cpp.json"
    out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


main(Path(sys.argv[1]))
