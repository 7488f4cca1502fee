"""The encoders `bert` and `nomic-bert` in float64: every token sees all others, and norms follow the additions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reference.forward import Twin

Array = npt.NDArray[np.float64]

POOLINGS = ("none", "mean", "cls", "last")
"""In the order of their numbers in files."""


class Encoder(Twin):
    """A model whose answer is not logits but rows, or one vector made of them."""

    def embedded(self, tokens: Sequence[int]) -> Array:
        x = super().embedded(tokens)
        if "token_types.weight" in self.file.tensors:
            x = x + self.array("token_types.weight")[0]  # there is but one text, so every token is of the first type
        if "position_embd.weight" in self.file.tensors:
            x = x + self.array("position_embd.weight")[: len(tokens)]
        return self.norm("token_embd_norm", x)

    def block(self, layer: int, x: Array) -> Array:
        name = f"blk.{layer}."
        x = self.norm(name + "attn_output_norm", x + self.mixed(layer, x))
        return self.norm(name + "layer_output_norm", x + self.feed_forward(name, x))

    def pooled(self, tokens: Sequence[int]) -> Array:
        """The vector for a text, not normalized."""
        x, pooling = self.hidden(tokens), POOLINGS[int(self.key("pooling_type", 0))]
        if pooling == "none":
            raise ValueError("a model without pooling has a vector per token only")
        out: Array = x.mean(axis=0) if pooling == "mean" else x[0 if pooling == "cls" else -1]
        return out
