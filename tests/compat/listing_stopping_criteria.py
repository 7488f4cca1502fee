# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A text that ends after some number of tokens.
from llama_cpp import Llama, StoppingCriteriaList

llm = Llama(model_path="./model.gguf", verbose=False)
prompt = llm.tokenize(b"Once upon a time")

def enough(input_ids, logits):
    return len(input_ids) >= len(prompt) + 5

out = llm(prompt, max_tokens=64, temperature=0, stopping_criteria=StoppingCriteriaList([enough]))
print(out["usage"]["completion_tokens"], out["choices"][0]["finish_reason"])
