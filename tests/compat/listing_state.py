# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A prompt computed once, and texts that begin with it.
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", n_ctx=256, verbose=False)
llm.eval(llm.tokenize(b"The capital of"))
state = llm.save_state()
answers = []
for country in (b" France is", b" Italy is"):
    llm.load_state(state)
    llm.eval(llm.tokenize(country, add_bos=False))
    answers.append(llm.detokenize([llm.sample(temp=0.0)]).decode())
print(answers)
