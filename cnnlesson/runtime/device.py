"""The device that trains: find it, name it, the type it computes in, and how busy it is."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

# How often a GPU is asked whether it works; it answers for about as long a time.
SAMPLE_SECONDS = 0.2


def find_device(name: torch.device | str | None) -> torch.device:
    """The device called `name`, which must exist; for None the GPU where there is one, else the processor."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: use 'cpu', 'cuda', or 'cuda:1' for a second GPU") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not there, this machine has {torch.cuda.device_count()} CUDA GPUs: use 'cpu', "
            "or in Colab choose Runtime, Change runtime type, T4 GPU"
        )
    return device


def free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def describe(device: torch.device) -> str:
    """The device in words, with the type that networks compute in there."""
    name = device.type.upper()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = f"a processor with {threads()} and no GPU"
    return f"{name}, in {str(training_dtype(device)).removeprefix('torch.')}"


def threads() -> str:
    """How many threads torch has on the processor, such as "1 thread" and "2 threads"."""
    number = torch.get_num_threads()
    return f"{number} {'thread' if number == 1 else 'threads'}"


def training_dtype(device: torch.device) -> torch.dtype:
    """What convolutions and matrix products are computed in: the fastest type that `device` has in hardware.

    bfloat16 on GPUs since Ampere and on processors with AVX512-BF16 or AMX; float16 on older GPUs, such as Colab's
    T4; float32 elsewhere. Weights, batch norm and the loss are float32 everywhere.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context in which a forward pass on `device` uses `training_dtype(device)`."""
    dtype = training_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


# Each optimizer has one scaler, because its scale adapts over hundreds of steps and must survive the end of an epoch.
_scalers: WeakKeyDictionary[torch.optim.Optimizer, torch.amp.GradScaler] = WeakKeyDictionary()


def gradient_scaler(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.amp.GradScaler:
    """The scaler of `optimizer`, which trains `model`: the same one in each call.

    float16 rounds small gradients to 0, so the loss is scaled up first. For the other types the scaler is disabled.
    """
    if optimizer not in _scalers:
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=training_dtype(device) is torch.float16)
        if scaler.is_enabled():
            _start_momentum_at_zero(optimizer)
        _scalers[optimizer] = scaler
    return _scalers[optimizer]


def _start_momentum_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Create the momentum buffers of fused SGD before its first step.

    Otherwise its first step creates them from uninitialised memory and fills them. In float16 the gradients of the
    first step usually overflow, and the scaler skips the step. The second step then takes what happened to be in that
    memory for momentum. With zeros, the first step is the same: 0.9 · 0 + gradient.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.requires_grad and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


@contextmanager
def busy_share(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """While it lasts, the function that comes with it gives the share of time that `device` worked since its last call.

    On a processor that is this process's time on all its threads; 1 means that each of torch's threads worked all the
    time. On a GPU it is the mean of `torch.cuda.utilization`, the time in which it did anything at all. None where
    nothing was measured: the package nvidia-ml-py is missing, or less than SAMPLE_SECONDS have passed.
    """
    samples = []
    ended = threading.Event()
    before = time.perf_counter(), time.process_time()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            try:
                samples.append(torch.cuda.utilization(device) / 100)
            except Exception:  # nvidia-ml-py is missing, or this GPU does not tell, each with an error of its own
                return

    def share() -> float | None:
        nonlocal before
        if device.type == "cuda":
            measured, samples[:] = list(samples), []
            return sum(measured) / len(measured) if measured else None
        now = time.perf_counter(), time.process_time()
        wall, worked = now[0] - before[0], now[1] - before[1]
        before = now
        return min(1.0, worked / (wall * torch.get_num_threads())) if device.type == "cpu" else None

    sampler = threading.Thread(target=sample, daemon=True)
    if device.type == "cuda":
        sampler.start()
    try:
        yield share
    finally:
        ended.set()
        if sampler.is_alive():
            sampler.join()
