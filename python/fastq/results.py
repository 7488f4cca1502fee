"""What calls return: plain frozen records that carry their measurements."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fastq.completion import ChatCompletion, ChatDelta, Completion, FinishReason, Timings, TokenLogprob, ToolCall, Usage

__all__ = [
    "ChatCompletion",
    "ChatDelta",
    "Completion",
    "ConvertNote",
    "ConvertResult",
    "CpuInfo",
    "FileInfo",
    "Finding",
    "FinishReason",
    "FormatInfo",
    "MemoryPlan",
    "ModelInfo",
    "QuantizeResult",
    "QuantizedTensor",
    "RerankResult",
    "TensorInfo",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "Usage",
]


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a loaded model.

    Attributes:
        path: The file.
        architecture: ``general.architecture`` of the file, such as ``"llama"``.
        name: ``general.name`` of the file, or ``None``.
        parameters: Number of weights.
        file_bytes: Size of the file (all shards), in bytes.
        bits_per_weight: Bits of tensor data per weight.
        layers: Number of transformer blocks.
        width: Length of the hidden state.
        heads: Query heads per layer.
        kv_heads: Key and value heads per layer.
        experts: Experts per layer; 0 for a model without.
        experts_used: Experts per layer that a token meets.
        head_dim: Length of a key.
        vocabulary: Number of tokens.
        context_trained: Context the model was trained for, in tokens.
        context: Context in use, in tokens.
        kv: What the KV cache stores, ``"f32"``, ``"f16"`` or ``"q8_0"``.
        types: Number of tensors of each type.
        tokenizer: Kind of tokenizer, such as ``"gpt2/smollm"``.
        chat_template: Whether the file has a chat template.
        level: SIMD level in use.
        threads: Threads in use.
        load_seconds: Seconds the load took.
    """

    path: str
    architecture: str
    name: str | None
    parameters: int
    file_bytes: int
    bits_per_weight: float
    layers: int
    width: int
    heads: int
    kv_heads: int
    experts: int
    experts_used: int
    head_dim: int
    vocabulary: int
    context_trained: int
    context: int
    kv: str
    types: dict[str, int]
    tokenizer: str
    chat_template: bool
    level: str
    threads: int
    load_seconds: float


@dataclass(frozen=True)
class RerankResult:
    """One document of :meth:`fastq.Model.rerank`.

    Attributes:
        index: Its place in the list that was given.
        score: How well it answers the query; larger is better. Only scores of one model can be compared.
    """

    index: int
    score: float


@dataclass(frozen=True)
class MemoryPlan:
    """What a model will need, computed from the file before anything is allocated. All sizes in bytes.

    Attributes:
        context: Context the plan is for, in tokens.
        context_trained: Context the model was trained for, in tokens.
        weights_bytes: Tensor data.
        weights_mapped: The weights are mapped: file cache, which the system may drop and read again.
        kv: What the KV cache stores, ``"f32"``, ``"f16"`` or ``"q8_0"``.
        kv_bytes: KV cache of one sequence of ``context`` tokens. Layers with a sliding window keep only that.
        state_bytes: Recurrent state of one sequence, where a model has such layers; the same for every context.
        scratch_bytes: Activations and working memory.
        total_bytes: What must be free: KV cache, recurrent state, working memory, and the weights unless they are
            mapped.
        available_bytes: What the machine can give now (the cgroup's limit included); ``None`` where it does not tell.
        warning: What is wrong although the model can be loaded: mapped weights that do not fit the free memory beside
            the rest, so that parts of the file are read again for every token. ``None`` when nothing is.
    """

    context: int
    context_trained: int
    weights_bytes: int
    weights_mapped: bool
    kv: str
    kv_bytes: int
    state_bytes: int
    scratch_bytes: int
    total_bytes: int
    available_bytes: int | None
    warning: str | None


@dataclass(frozen=True)
class Finding:
    """One thing that :func:`fastq.doctor` looked at. ``str(finding)`` is the text.

    Attributes:
        status: ``"ok"``, ``"warning"`` (it works, but could be better) or ``"problem"`` (it keeps fastq from running).
        text: What was found, and why, in one line.
        data: The same as figures: bytes, MHz, bytes per second.
    """

    status: Literal["ok", "warning", "problem"]
    text: str
    data: dict[str, Any]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file.

    Attributes:
        name: Its name.
        shape: Dimensions in ggml's order: ``shape[0]`` is the contiguous one.
        type: Type name, such as ``"Q4_K"``.
        offset: Place of its data in the data section of its file, in bytes.
        bytes: Size of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class FileInfo:
    """What a GGUF file holds.

    Attributes:
        path: The file.
        version: GGUF version.
        alignment: Alignment of tensor data, in bytes.
        file_bytes: Size of the file (all shards).
        parameters: Number of weights in all tensors.
        bits_per_weight: Bits of tensor data per weight; 0.0 without tensors.
        metadata: Key-value pairs in file order. Strings that are not UTF-8 are ``bytes``.
        tensors: The tensors in file order.
    """

    path: str
    version: int
    alignment: int
    file_bytes: int
    parameters: int
    bits_per_weight: float
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: list[TensorInfo] = field(repr=False)

    @property
    def architecture(self) -> str | None:
        """``general.architecture``, or ``None``."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else None

    @property
    def types(self) -> dict[str, int]:
        """Number of tensors of each type, the most frequent first."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class QuantizedTensor:
    """What became of a tensor.

    Attributes:
        name: Its name.
        shape: Dimensions in ggml's order: ``shape[0]`` is the contiguous one.
        source_type: The type it had.
        type: The type it has.
        bytes: Size of its data.
        bits: Bits per weight.
        error: Sum of the squared differences over the sum of the squared weights; ``None`` where the bytes were
            copied, or in a dry run.
        snr_db: The same as signal to noise in decibels; ``None`` also where all is exact.
        worst: Largest difference of a weight.
        importance: Whether errors were weighted by an importance matrix.
        method: How its integers were found, such as ``"search"``, or ``"awq+feedback"`` where columns were scaled
            before; ``None`` when its bytes were copied, or in a dry run.
        fallback: Why it does not have the type that the target says.
    """

    name: str
    shape: tuple[int, ...]
    source_type: str
    type: str
    bytes: int
    bits: float
    error: float | None
    snr_db: float | None
    worst: float | None
    importance: bool
    method: str | None
    fallback: str | None


@dataclass(frozen=True)
class QuantizeResult:
    """What :func:`fastq.quantize` made, or would make.

    Attributes:
        source: The model.
        output: The new file; empty in a dry run.
        target: What was asked for, such as ``"Q4_K_M"``.
        method: How weights became integers.
        source_bytes: Size of the model's files.
        bytes: Size of the new file.
        weights: Number of weights.
        bits_per_weight: Bits of tensor data per weight.
        error: Squared differences over squared weights, of all that was encoded; in a dry run expected, from a sample
            of the rows; ``None`` when nothing is encoded.
        mean_kld: Mean KL divergence from the source, in nats, measured for types that a target size or divergence
            chose, with the integers of ``"search"``; ``None`` without a target.
        tensors: The tensors in the order of the file.
        warnings: What one should know: fallbacks, weights quantized twice, tensors that an importance matrix lacks.
        resumed: Tensors that an interrupted run had completed.
        seconds: Wall time; of a dry run what is expected, without the passes over a calibration text.
        peak_rss_bytes: The largest resident size of the process so far, of a dry run what a run would take at most;
            ``None`` where the system does not say.
        dry_run: Whether nothing was written.
    """

    source: str
    output: str
    target: str
    method: str
    source_bytes: int
    bytes: int
    weights: int
    bits_per_weight: float
    error: float | None
    mean_kld: float | None
    tensors: list[QuantizedTensor] = field(repr=False)
    warnings: list[str]
    resumed: int
    seconds: float
    peak_rss_bytes: int | None
    dry_run: bool

    @classmethod
    def from_json(cls, text: str) -> QuantizeResult:
        """The result that :meth:`to_dict` gave, as JSON."""
        import json

        record = json.loads(text)
        tensors = [QuantizedTensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in record.pop("tensors")]
        return cls(tensors=tensors, **record)

    @property
    def types(self) -> dict[str, int]:
        """Number of tensors of each type, the most frequent first."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, ready for JSON."""
        return asdict(self)

    def html(self, points: Iterable[tuple[str, int, float]] = ()) -> str:
        """A page that needs nothing else, with bars for size and bits and a table that sorts.

        Args:
            points: Files for a plot of size against divergence: label, bytes, mean KL divergence.
        """
        return self._html(points, None)

    def write_html(self, path: str | os.PathLike[str], points: Iterable[tuple[str, int, float]] = ()) -> None:
        """Write :meth:`html` to a file, which appears when it is complete.

        Args:
            path: The file.
            points: As for :meth:`html`.

        Raises:
            OSError: The system refuses to write it.
        """
        self._html(points, os.fspath(path))

    def _html(self, points: Iterable[tuple[str, int, float]], path: str | None) -> str:
        import json

        from fastq import _fastq

        return _fastq.report_html(json.dumps(self.to_dict()), list(points), path)


@dataclass(frozen=True)
class CpuInfo:
    """What the processor offers and what fastq uses.

    Attributes:
        level: SIMD level in use (``FASTQ_LEVEL`` lowers it).
        available_levels: Levels this CPU can run, lowest first.
        threads: Threads a model uses by default: the smaller of CPU quota, affinity mask and performance cores.
    """

    level: str
    available_levels: list[str]
    threads: int


@dataclass(frozen=True)
class FormatInfo:
    """A block format that kernels exist for.

    Attributes:
        name: Name as GGUF tools write it.
        id: ggml type id in a file.
        block: Weights per block.
        bytes: Bytes per block.
        uses_importance: Whether the importance of the weights changes how they are encoded.
        needs_importance: Whether it cannot be made without their importance.
    """

    name: str
    id: int
    block: int
    bytes: int
    uses_importance: bool
    needs_importance: bool

    @property
    def bits_per_weight(self) -> float:
        """Bits of a stored weight, scales included."""
        return 8 * self.bytes / self.block


@dataclass(frozen=True)
class Calibration:
    """What :func:`fastq.calibrate` wrote.

    Attributes:
        path: The file.
        tensors: Number of matrices whose inputs are in it; of Gram matrices, number of inputs.
        chunks: Number of chunks that were computed.
    """

    path: str
    tensors: int
    chunks: int


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a model on a text. ``*_error`` are standard errors.

    Attributes:
        ppl: The perplexity.
        nll: Mean negative log-probability of a token, in nats.
        by_chunk: The perplexity so far, after each chunk.
        chunks: Number of chunks.
        context: Tokens of a chunk.
        tokens: Number of tokens that were scored.
    """

    ppl: float
    ppl_error: float
    nll: float
    nll_error: float
    by_chunk: list[float] = field(repr=False)
    chunks: int
    context: int
    tokens: int


@dataclass(frozen=True)
class Divergence:
    """How far a quantized model is from its base. Divergences are in nats, ``*_error`` are standard errors.

    Attributes:
        mean: Mean divergence.
        median: The divergence that half of the tokens are below; ``p90``, ``p99``, ``p999`` and ``max`` accordingly.
        same_top: Share of the positions at which both have the same likeliest token, from 0 to 1.
        ppl_base: Perplexity of the base.
        ppl: Perplexity of the quantized model.
        ppl_ratio: ``ppl / ppl_base``; its error takes into account that both go up and down together.
        rms_delta_p: Root mean square of the difference of the probabilities of the true token.
        mean_delta_p: Mean of that difference; below 0 where the quantized model is less sure of the truth.
        chunks: Number of chunks.
        context: Tokens of a chunk.
        tokens: Number of tokens that were scored.
    """

    mean: float
    mean_error: float
    median: float
    p90: float
    p99: float
    p999: float
    max: float
    same_top: float
    same_top_error: float
    ppl_base: float
    ppl_base_error: float
    ppl: float
    ppl_error: float
    ppl_ratio: float
    ppl_ratio_error: float
    rms_delta_p: float
    rms_delta_p_error: float
    mean_delta_p: float
    mean_delta_p_error: float
    chunks: int
    context: int
    tokens: int


@dataclass(frozen=True)
class ConvertNote:
    """Something to know about a conversion.

    Attributes:
        subject: The tensor (in the checkpoint), the file or the part it is about.
        text: What was lost, changed or left out.
    """

    subject: str
    text: str


@dataclass(frozen=True)
class ConvertResult:
    """A converted checkpoint.

    Attributes:
        architecture: ``general.architecture``.
        tensors: Number of tensors.
        parameters: Number of weights.
        bytes: Size of the file.
        types: Number of tensors of each type.
        notes: What was lost, changed or left out.
    """

    architecture: str
    tensors: int
    parameters: int
    bytes: int
    types: Mapping[str, int]
    notes: list[ConvertNote]
