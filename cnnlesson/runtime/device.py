"""The device that trains: how to find it, its name, the type it computes in, and how busy it is."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from cnnlesson.runtime.display import count

# The time between two measurements of a GPU's utilization, which is itself an average over about as long.
SAMPLE_SECONDS = 0.2


def find_device(name: torch.device | str | None) -> torch.device:
    """Return the device called `name`, which must exist; for None a GPU if there is one (CUDA or MPS), else the CPU.

    Raises:
        ValueError: there is no such device, or this version of PyTorch has no kernels for it.
    """
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name is None:
        name = next(kind for kind in counts if counts[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"unknown device {name!r}: use 'cpu', 'cuda', 'cuda:1' for a second GPU, or 'mps' for Apple's"
        ) from None
    if (device.index or 0) >= counts.get(device.type, 0):
        raise ValueError(
            f"device {name!r} is not there, this machine has {counts['cuda']} CUDA GPUs: use 'cpu', or in Colab choose "
            "Runtime, Change runtime type, T4 GPU"
        )
    if device.type == "cuda":
        _need_kernels(device)
    return device


def _need_kernels(device: torch.device) -> None:
    """Refuse a GPU that is older than those that PyTorch was built for: its first kernel would fail with an error."""
    major, minor = torch.cuda.get_device_capability(device)
    # Such as ["sm_75", "sm_80", "sm_90a"]; empty if PyTorch was built without CUDA.
    oldest = min((int("".join(filter(str.isdigit, arch))) for arch in torch.cuda.get_arch_list()), default=0)
    if 10 * major + minor < oldest:
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} is too old for PyTorch {torch.__version__} (compute capability "
            f"{major}.{minor}, at least {oldest // 10}.{oldest % 10} is needed): use device 'cpu' or another GPU, or "
            "install an older PyTorch"
        )


def free_bytes(device: torch.device) -> float:
    """The free memory of a GPU in bytes; infinity for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def describe(device: torch.device) -> str:
    """The name of the device and the type that networks compute in, such as "a CPU with 2 threads, in bfloat16"."""
    return f"{device_name(device)}, in {str(training_dtype(device)).removeprefix('torch.')}"


def device_name(device: torch.device) -> str:
    """Such as "Tesla T4" and "a CPU with 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU with {threads()}" if device.type == "cpu" else device.type.upper()


def threads() -> str:
    """The number of threads that torch uses on the CPU, such as "1 thread" or "2 threads"."""
    return count(torch.get_num_threads(), "thread")


def training_dtype(device: torch.device) -> torch.dtype:
    """The type for convolutions and matrix products: the fastest one that `device` supports in hardware.

    It is bfloat16 on GPUs since Ampere and on CPUs with AVX512-BF16 or AMX, float16 on older GPUs such as Colab's T4,
    and float32 elsewhere. Weights, batch norm and the loss are float32 everywhere.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.11
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context in which a forward pass on `device` uses `training_dtype(device)`."""
    dtype = training_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def evaluation_precision(device: torch.device) -> torch.autocast:
    """The context for a forward pass on `device` outside of training: `mixed_precision`, but float32 for float16.

    float16 ends at 65,504. In the first epochs, while batch norm's running statistics lag behind the weights, the
    activations of a network that learns well can be larger in evaluation mode.
    """
    dtype = training_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is torch.bfloat16)


# One scaler per optimizer: its scale adapts over hundreds of steps, so it must survive the end of an epoch.
_scalers: WeakKeyDictionary[torch.optim.Optimizer, torch.amp.GradScaler] = WeakKeyDictionary()


def gradient_scaler(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.amp.GradScaler:
    """The scaler for training `model` with `optimizer`; every call with this optimizer returns the same one.

    float16 rounds small gradients to 0, so the loss is scaled up first. For other types the scaler is disabled.
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

    Otherwise the first step creates them from uninitialized memory, and fills them. In float16 the gradients of this
    step usually overflow, and the scaler skips it. The second step then uses what was in that memory as momentum.
    With zeros the first step is the same: 0.9 · 0 + gradient.
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
    """Within this context, the function that it yields returns how busy `device` was since the last call, from 0 to 1.

    For the CPU, 1 means that this process kept all of torch's threads busy. For a GPU it is the mean of
    `torch.cuda.utilization`: the share of the time in which the GPU was active. The function returns None if nothing
    was measured, because the package nvidia-ml-py is missing or less than SAMPLE_SECONDS have passed.
    """
    samples = []
    ended = threading.Event()
    before = time.perf_counter(), time.process_time()
    if device.type == "cuda" and device.index is None and torch.cuda.is_initialized():
        device = torch.device("cuda", torch.cuda.current_device())  # the thread below has a current GPU of its own

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            try:
                samples.append(torch.cuda.utilization(device) / 100)
            except Exception:  # nvidia-ml-py is missing, or the GPU does not report: each has its own error
                return

    def share() -> float | None:
        nonlocal before
        if device.type == "cuda":
            measured, samples[:] = list(samples), []
            return sum(measured) / len(measured) if measured else None
        now = time.perf_counter(), time.process_time()
        wall, busy = now[0] - before[0], now[1] - before[1]
        before = now
        return min(1.0, busy / (wall * torch.get_num_threads())) if device.type == "cpu" else None

    sampler = threading.Thread(target=sample, daemon=True)
    if device.type == "cuda":
        sampler.start()
    try:
        yield share
    finally:
        ended.set()
        if sampler.is_alive():
            sampler.join()
