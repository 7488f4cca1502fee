# ruff: noqa
# mypy: ignore-errors
# fmt: off
# The wrapper of LangChain.
from langchain_community.embeddings import LlamaCppEmbeddings
from langchain_community.llms import LlamaCpp

llm = LlamaCpp(model_path="./model.gguf", n_ctx=512, temperature=0, max_tokens=8, verbose=False)
print(llm.invoke("The capital of France is"))
print("".join(llm.stream("The capital of France is")))
vectors = LlamaCppEmbeddings(model_path="./embedding-model.gguf", verbose=False).embed_documents(["One", "Two"])
print(len(vectors), len(vectors[0]))
