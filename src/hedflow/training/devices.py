"""Where a run is trained: CPU, CUDA (NVIDIA, AMD) or XPU (Intel), which Lightning has no accelerator for.

Which device of a node a run sees is its environment's to say (CUDA_VISIBLE_DEVICES, ZE_AFFINITY_MASK): it takes the
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy

from hedflow import HedflowError

MASKS = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}


class XPUAccelerator(Accelerator):
    """Intel GPUs by torch.xpu."""

    def setup_device(self, device: torch.device) -> None:
        """Make the device the current one.

        Raises:
            ValueError: it is no XPU.
        """
        if device.type != "xpu":
            raise ValueError(f"expected an XPU, got {device}")
        torch.xpu.set_device(device)

    def teardown(self) -> None:
        """Give back the memory that PyTorch holds in reserve."""
        torch.xpu.empty_cache()

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Memory figures of the device."""
        return dict(torch.xpu.memory_stats(device))

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> list[int]:
        """Device numbers of a Trainer's `devices`: a count, a list, or '0,1'."""
        if isinstance(devices, str):
            devices = [int(part) for part in devices.split(",")]
        return list(range(devices)) if isinstance(devices, int) else list(devices)

    @staticmethod
    def get_parallel_devices(devices: Sequence[int]) -> list[torch.device]:
        """The devices of these numbers."""
        return [torch.device("xpu", number) for number in devices]

    @staticmethod
    def auto_device_count() -> int:
        """How many there are."""
        return torch.xpu.device_count()

    @staticmethod
    def is_available() -> bool:
        """Whether there is one."""
        return torch.xpu.is_available()

    @staticmethod
    def name() -> str:
        """Its name in Lightning's registry."""
        return "xpu"


def choose_device(wanted: str) -> torch.device:
    """The device for `training.device`.

    Raises:
        HedflowError: it is not there.
    """
    there = {"cuda": torch.cuda.is_available, "xpu": torch.xpu.is_available}
    if wanted == "auto":
        return torch.device(next((name for name, is_there in there.items() if is_there()), "cpu"))
    if wanted in there and not there[wanted]():
        raise HedflowError(
            f"training.device is {wanted}, but PyTorch finds no {wanted.upper()} device here (the driver, PyTorch's "
            f"build or {MASKS[wanted]} may hide it); use auto or cpu."
        )
    return torch.device(wanted)


def placement(device: torch.device) -> dict[str, Any]:
    """What a Lightning Trainer is given for one device."""
    if device.type == "xpu":
        strategy = SingleDeviceStrategy(torch.device("xpu", 0), accelerator=XPUAccelerator())
        return {"strategy": strategy}
    return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": 1}


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 of the matrix products.

    Raises:
        HedflowError: the device has no bfloat16.
    """
    asked = {"cuda": torch.cuda.is_bf16_supported, "xpu": torch.xpu.is_bf16_supported}.get(device.type)
    has = asked(including_emulation=False) if asked else None
    if wanted == "auto":
        return torch.bfloat16 if has else torch.float32
    if wanted == "bfloat16" and has is False:
        raise HedflowError(f"training.precision is bfloat16, which this {device.type} device has not; use auto.")
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def device_name(device: torch.device) -> str:
    """What the device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.xpu.get_device_name(device)) if device.type == "xpu" else device.type
