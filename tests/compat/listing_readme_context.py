# ruff: noqa
# mypy: ignore-errors
# fmt: off
# README of llama-cpp-python 0.3.36 (MIT), "Adjusting the Context Window"; with the import that it leaves out.
from llama_cpp import Llama

llm = Llama(model_path="./models/7B/llama-model.gguf", n_ctx=2048)
