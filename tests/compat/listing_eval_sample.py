# ruff: noqa
# mypy: ignore-errors
# fmt: off
# The loop of eval and sample that tutorials show to explain generation.
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", n_ctx=256, logits_all=True, verbose=False)
tokens = llm.tokenize(b"The capital of France is", add_bos=True)
llm.reset()
llm.eval(tokens)
text = b""
for _ in range(8):
    token = llm.sample(top_k=1, temp=0.0)
    if token == llm.token_eos():
        break
    text += llm.detokenize([token])
    llm.eval([token])
print(text.decode("utf-8", errors="ignore"))
print(len(llm.eval_logits), llm.scores.shape[1] == llm.n_vocab())
