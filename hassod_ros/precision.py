"""Which precision a device computes fast in."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
Wanted = Literal["auto", "fp32", "bf16", "fp16"]


def bf16_is_fast(device: str | torch.device) -> bool:
    """Whether the hardware computes in bfloat16; elsewhere it is emulated and slower than float32."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def training_precision(device: str | torch.device, wanted: Wanted) -> Precision:
    """The precision wanted, or for "auto" what is fast: bf16, else fp16 on a GPU and fp32 on a CPU."""
    if wanted != "auto":
        return wanted
    if bf16_is_fast(device):
        return "bf16"
    return "fp16" if torch.device(device).type == "cuda" else "fp32"
