# ruff: noqa
# mypy: ignore-errors
# fmt: off
# Which text is most like a question.
import numpy as np
from llama_cpp import Llama

embedder = Llama(model_path="./embedding-model.gguf", embedding=True, verbose=False)

def vector(text):
    v = np.array(embedder.create_embedding(text)["data"][0]["embedding"])
    return v / np.linalg.norm(v)

documents = ["The cat sat on the mat.", "Stocks fell sharply on Monday.", "A recipe for apple pie."]
query = vector("What happened to the stock market?")
scores = [float(vector(d) @ query) for d in documents]
print(documents[int(np.argmax(scores))])
