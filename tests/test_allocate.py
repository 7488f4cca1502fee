"""Types for a size: what is asked for is met, what is impossible says what would be possible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastq
from conftest import Make

TEXT = (Path(__file__).resolve().parents[1] / "LICENSE-APACHE").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(make: Make) -> Path:
    return make(layers=3, width=256, heads=4, kv_heads=2, ffn=512, format="F16", context=512)


def test_sizes_are_hit_from_below(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(ValueError, match="the smallest that can be made has") as refused:
        fastq.quantize(source, out, target_size=1000, calibration=[TEXT], own_text=0)
    found = re.search(r"can be made has (\d+)", str(refused.value))
    assert found is not None
    least = int(found[1])
    small = fastq.quantize(
        source, out, target_size=least, calibration=[TEXT], own_text=0, method="rtn", allow_requantize=True
    )
    assert small.bytes == out.stat().st_size == least
    size = 2 * least
    middle = fastq.quantize(source, out, target_size=f"{size}B", calibration=[TEXT], method="rtn", threads=2)
    assert 0.98 * size <= middle.bytes <= size
    assert middle.bytes == out.stat().st_size
    assert len(middle.types) > 2, "one type for everything"
    assert middle.error is not None
    assert small.error is not None
    assert middle.error < small.error


def test_types_that_are_named_stay(source: Path, tmp_path: Path) -> None:
    result = fastq.quantize(
        source,
        tmp_path / "out.gguf",
        target_bpw=4.5,
        calibration=[TEXT],
        own_text=0,
        method="rtn",
        overrides={"attn_v": "Q8_0"},
    )
    assert result.bits_per_weight <= 4.5
    assert {tensor.type for tensor in result.tensors if "attn_v" in tensor.name} == {"Q8_0"}


def test_divergences_are_kept(source: Path, tmp_path: Path) -> None:
    """The file of the smaller divergence is larger, and nearer to the source on other text."""
    results = []
    for name, kld in (("far", 0.02), ("near", 0.005)):
        out = tmp_path / f"{name}.gguf"
        result = fastq.quantize(source, out, target_kld=kld, calibration=[TEXT], own_text=0, method="search", threads=2)
        other = (Path(__file__).resolve().parents[1] / "LICENSE-MIT").read_text(encoding="utf-8")
        results.append((result.bytes, fastq.kl_divergence(source, out, other, context=128).mean))
    (far, far_kld), (near, near_kld) = results
    assert near > far
    assert near_kld < far_kld


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_size": "700 parsecs"}, "a size must be like 700MB"),
        ({"target_size": "1GB", "target_bpw": 4.5}, "exclude each other"),
        ({"target_bpw": float("nan")}, "target_bpw must be above 0"),
        ({"target_kld": -1.0}, "target_kld must be above 0"),
    ],
)
def test_sizes_that_are_none(options: dict[str, object], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fastq.quantize(source, tmp_path / "out.gguf", calibration=[TEXT], **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs text to measure with"):
        fastq.quantize(source, tmp_path / "out.gguf", target_size="1GB")
    assert not list(tmp_path.iterdir())
