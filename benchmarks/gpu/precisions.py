"""Define the precisions and memory layouts of measured steps, and cuDNN's settings for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """tf32: of convolutions in float32, as cuDNN has it by default. bfloat16: autocast.

    Matrix products in float32 stay exact: those of `affine_grid` compute coordinates.
    """

    name: str
    tf32: bool = False
    bfloat16: bool = False
    channels_last: bool = True

    @property
    def label(self) -> str:
        """Return the text for the column "setting"."""
        return f"{self.name}, {'channels last' if self.channels_last else 'contiguous'}"

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)

    def set(self, *, benchmark: bool = True, plans: int = 10) -> None:
        """Set the process: TF32, and cuDNN to try `plans` plans, or else to be deterministic."""
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.benchmark_limit = plans
        torch.backends.cudnn.deterministic = not benchmark


FLOAT32 = Precision("float32")
TF32 = Precision("TF32", tf32=True)
#: As the stages are: what autocast leaves in float32 is in TF32.
BFLOAT16 = Precision("bfloat16", tf32=True, bfloat16=True)
CHANNELS_LAST = (TF32, BFLOAT16, FLOAT32)
CONTIGUOUS = (
    Precision("TF32", tf32=True, channels_last=False),
    Precision("bfloat16", tf32=True, bfloat16=True, channels_last=False),
    Precision("float32", channels_last=False),
)
