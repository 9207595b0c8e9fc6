"""Part: which device, which versions, which clocks."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator

import segmentation_models_pytorch
import timm
import torch
import torchvision

from gpu.rows import Row, Task
from gpu.worker import Context

#: Read only: nothing is set.
QUERY = "driver_version,compute_mode,clocks.sm,clocks.max.sm,clocks.mem,power.limit"


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    return [
        Task("versions", lambda: versions(context), 2),
        Task("ceilings", lambda: ceilings(context), 3),
    ]


def versions(context: Context) -> Iterator[Row]:
    """Name the device and the versions of what runs on it."""
    name = "CPU (dry run)" if context.dry else torch.cuda.get_device_name()
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    packages = f"torchvision {torchvision.__version__}, timm {timm.__version__}"
    packages += f", segmentation-models-pytorch {segmentation_models_pytorch.__version__}"
    more = f"torch {torch.__version__}, CUDA {cuda}, cuDNN {cudnn}, {packages}"
    cores = len(os.sched_getaffinity(0))
    yield Row(name, f"Python {platform.python_version()}, {cores} cores", more=more)
    defaults = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    yield Row("TF32 by default", more=f"cuDNN {defaults[0]}, matrix products {defaults[1]}")
    if not context.dry:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
        yield Row("nvidia-smi", QUERY, more=answer.stdout.strip())


def ceilings(context: Context) -> Iterator[Row]:
    """Measure what a large matrix product and a large copy reach."""
    from gpu.timing import milliseconds

    side = 64 if context.dry else 8192
    for precision in ("bfloat16", "tf32", "float32"):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        left, right = (torch.randn(side, side, device=context.device, dtype=kind) for _ in range(2))
        ms = milliseconds(lambda a=left, b=right: a @ b, context.device, count=6, warm_up=2)
        rate = 2 * side**3 / ms / 1e9
        yield Row(f"matrix product, {side}", precision, ms, rate, "TFLOP/s")
    source = torch.ones(2**16 if context.dry else 2**30, device=context.device)
    target = torch.empty_like(source)
    ms = milliseconds(lambda: target.copy_(source), context.device, count=12, warm_up=2)
    yield Row("copy on the device", "read and written", ms, 8 * len(source) / ms / 1e9, "TB/s")
