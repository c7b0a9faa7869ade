"""The type in which a stage computes when its settings leave it open."""

from __future__ import annotations

import pytest
import torch

from serve import worker
from serve.worker import TorchWorker


@pytest.mark.parametrize(("kernel", "wanted"), [(None, torch.float32), (lambda *_: 0, torch.bfloat16)])
def test_a_cpu_computes_in_bfloat16_where_attention_is_compiled_for_it(
    monkeypatch: pytest.MonkeyPatch, kernel: object, wanted: torch.dtype
) -> None:
    monkeypatch.setattr(worker, "kernel", lambda: kernel)
    assert TorchWorker(dtype="auto", threads=1).dtype == wanted
    assert TorchWorker(dtype="float32", threads=1).dtype == torch.float32
    assert TorchWorker(dtype="bfloat16", threads=1).dtype == torch.bfloat16


@pytest.mark.parametrize(("has", "wanted"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_gpu_computes_in_bfloat16_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, has: bool, wanted: torch.dtype
) -> None:
    """Not where torch would emulate it."""
    asked: list[dict[str, bool]] = []

    def supported(**how: bool) -> bool:
        asked.append(how)
        return has

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert TorchWorker("cuda", "auto", 1).dtype == wanted
    assert asked == [{"including_emulation": False}]
