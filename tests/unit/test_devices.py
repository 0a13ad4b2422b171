"""Where a run is trained: what is chosen, and Intel's accelerator with a device that stands in for one."""

import pytest
import torch

from hedflow import HedflowError
from hedflow.training.devices import XPUAccelerator, choose_device, choose_precision, device_name, placement


@pytest.fixture
def fake_xpu(monkeypatch):
    """torch.xpu as a machine with two Intel GPUs has it; what is asked of it is noted."""
    asked = []
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "set_device": lambda device: asked.append(("set_device", device)),
        "empty_cache": lambda: asked.append(("empty_cache", None)),
        "memory_stats": lambda device: {"allocated": 7},
        "is_bf16_supported": lambda including_emulation: not including_emulation,
        "get_device_name": lambda device: "Intel Data Center GPU Max 1550",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.xpu, name, answer)
    return asked


def test_auto_takes_what_there_is(fake_xpu, monkeypatch):
    assert choose_device("auto").type == "xpu"
    assert choose_precision("auto", torch.device("xpu")) == torch.bfloat16
    assert choose_precision("float32", torch.device("xpu")) == torch.float32
    assert device_name(torch.device("xpu")) == "Intel Data Center GPU Max 1550"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


def test_without_any_it_is_the_cpu(monkeypatch):
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "is_available", lambda: False)
    cpu = choose_device("auto")
    assert cpu.type == "cpu"
    assert choose_precision("auto", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert placement(cpu) == {"accelerator": "cpu", "devices": 1}
    for name, mask in (("cuda", "CUDA_VISIBLE_DEVICES"), ("xpu", "ZE_AFFINITY_MASK")):
        with pytest.raises(HedflowError, match=rf"training\.device is {name}, but PyTorch finds no .*{mask}"):
            choose_device(name)


def test_the_accelerator_asks_torch_xpu(fake_xpu):
    accelerator = XPUAccelerator()
    assert XPUAccelerator.is_available()
    assert XPUAccelerator.auto_device_count() == 2
    assert XPUAccelerator.parse_devices(2) == XPUAccelerator.parse_devices("0,1") == [0, 1]
    assert XPUAccelerator.parse_devices([1]) == [1]
    assert XPUAccelerator.get_parallel_devices([1]) == [torch.device("xpu", 1)]
    assert accelerator.get_device_stats(torch.device("xpu", 0)) == {"allocated": 7}
    accelerator.setup_device(torch.device("xpu", 0))
    accelerator.teardown()
    assert fake_xpu == [("set_device", torch.device("xpu", 0)), ("empty_cache", None)]
    with pytest.raises(ValueError, match="expected an XPU, got cpu"):
        accelerator.setup_device(torch.device("cpu"))


def test_lightning_takes_the_accelerator(fake_xpu):
    """A Trainer is made for the first device that the job's mask shows; its name is Intel's."""
    import pytorch_lightning as pl

    trainer = pl.Trainer(**placement(torch.device("xpu")), logger=False, enable_checkpointing=False)
    assert isinstance(trainer.accelerator, XPUAccelerator)
    assert trainer.strategy.root_device == torch.device("xpu", 0)
    assert trainer.accelerator.name() == "xpu"


def test_a_device_without_bfloat16(monkeypatch):
    """Or which only emulates it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    cuda = torch.device("cuda")
    assert choose_precision("auto", cuda) == torch.float32
    with pytest.raises(HedflowError, match="precision is bfloat16, which this cuda device has not"):
        choose_precision("bfloat16", cuda)
