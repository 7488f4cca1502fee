"""What the files of hybrid models hold for layers that have a state in place of attention, and the keys about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiny import Layout, Tiny


def is_recurrent(shape: Tiny, layer: int) -> bool:
    """Whether a layer has a state: as `mixers` says, else all but every third or fourth."""
    mixer = shape.family().mixer
    if mixer == "attention" or layer >= shape.layers:
        return False
    if shape.mixers is not None:
        return shape.mixers[layer] == "r"
    return (layer + 1) % (3 if mixer == "short convolution" else 4) != 0


def short_convolution(layout: Layout, name: str) -> None:
    width, name = layout.shape.width, name + "shortconv."
    layout.matrix(name + "conv", width, layout.shape.number("taps"), form="F32")
    layout.matrix(name + "in_proj", 3 * width, width, 1.5)
    layout.matrix(name + "out_proj", width, width)


def delta_net(layout: Layout, name: str) -> None:
    width = layout.shape.width
    taps, heads, keys, size = map(layout.shape.number, ("taps", "delta_heads", "delta_keys", "state"))
    mixed = (2 * keys + heads) * size
    layout.matrix(name + "attn_qkv", mixed, width, 1.5)
    layout.matrix(name + "attn_gate", heads * size, width, 1.5)
    layout.matrix(name + "ssm_conv1d", mixed, taps, form="F32")
    layout.bias(name + "ssm_dt", heads)
    layout.vector(name + "ssm_a", heads, "decay")
    layout.matrix(name + "ssm_beta", heads, width)
    layout.matrix(name + "ssm_alpha", heads, width)
    layout.vector(name + "ssm_norm.weight", size, "norm")
    layout.matrix(name + "ssm_out", width, heads * size)


def further_tokens(layout: Layout, name: str) -> None:
    """What a layer that predicts the token after the next has beside the tensors of an attention layer."""
    width = layout.shape.width
    layout.matrix(name + "nextn.eh_proj", width, 2 * width)
    for norm in ("enorm", "hnorm", "shared_head_norm"):
        layout.norm(name + "nextn." + norm)


def keys(shape: Tiny) -> dict[str, Any]:
    """Keys that are not just an option, without the name of the architecture."""
    recurrent = [is_recurrent(shape, layer) for layer in range(shape.layers + (shape.extra_layers or 0))]
    mixer = shape.family().mixer
    if mixer == "short convolution":
        heads = [0 if state else shape.kv_heads for state in recurrent]
        return {"attention.head_count_kv": heads, "shortconv.l_cache": shape.taps}
    found: dict[str, Any] = {"attention.head_count_kv": shape.kv_heads}
    if mixer == "delta net":
        pairs = shape.number("rope_dimensions") // 2
        found["ssm.conv_kernel"] = shape.taps
        found["ssm.inner_size"] = shape.number("delta_heads") * shape.number("state")
        # Pairs that turn with time, height and width, which are one and the same in a text.
        found["rope.dimension_sections"] = [pairs // 3 + (pairs % 3 > axis) for axis in range(3)] + [0]
        if shape.mixers is None:
            found["full_attention_interval"] = 4
        else:
            found["attention.recurrent_layers"] = recurrent
    return found
