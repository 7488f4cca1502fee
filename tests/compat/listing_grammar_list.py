# ruff: noqa
# mypy: ignore-errors
# fmt: off
# An answer that a grammar makes a list.
from llama_cpp import Llama, LlamaGrammar

grammar = LlamaGrammar.from_string(r'''
root ::= item item item
item ::= "- " [a-zA-Z ]{1,20} "\n"
''', verbose=False)
llm = Llama(model_path="./model.gguf", verbose=False)
response = llm("Three fruits:\n", grammar=grammar, max_tokens=64, temperature=0.2)
print(response["choices"][0]["text"], end="")
