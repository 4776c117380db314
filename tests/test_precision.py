import pytest
import torch

from hassod_ros import precision


@pytest.mark.parametrize(("has_bf16", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_never_gets_fp16_which_is_8_times_slower_there(monkeypatch, has_bf16, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)
    assert precision.training_precision("cpu", "auto") == wanted
    assert precision.training_precision("cpu", "fp16") == "fp16"  # whoever asks gets it


def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert precision.training_precision("cuda", "auto") == "fp16"
