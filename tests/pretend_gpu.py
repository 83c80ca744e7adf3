"""A pretended GPU on a CPU: code for CUDA runs, computes real values, and raises if a real GPU would raise.

    with pretend_gpu("T4") as gpu:      # or install("T4") for the rest of the process, such as a notebook's kernel
        ...                             # torch.cuda.is_available() is True, and device="cuda" works
    gpu.syncs                           # each time that the CPU waited for the GPU: (what, file:line)

A tensor "on the GPU" is an ordinary one whose storage carries a mark. A TorchFunctionMode answers what Python asks
(`.device`, `.to`, `.numpy()`, factories with device=...). A TorchDispatchMode below autograd sees every kernel: an
operation with tensors of both devices raises, and the outputs are on the device of the inputs. So forward passes,
backward passes and optimizers are checked alike. "T4" trains in float16, with the real GradScaler, and "A100" in
bfloat16, both computed by the CPU's kernels. A tensor larger than the GPU's memory raises torch.OutOfMemoryError.

It cannot show whether a CUDA kernel exists for a type, nor its rounding, speed and memory.
"""

import contextlib
import os
import sys
import traceback
import types
import warnings

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")
MARK = "_pretended_on_gpu"


def is_marked(tensor: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        return False
    return getattr(tensor.untyped_storage(), MARK, False)


def mark(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is torch.strided and tensor.device.type != "meta":
        setattr(tensor.untyped_storage(), MARK, True)
    return tensor


def tensors_in(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _place() -> str:
    """The innermost lines of the caller outside of torch and of this file."""
    frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__]
    return " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames[-3:]))


class Gpu:
    """What is pretended, and what happened on it."""

    def __init__(self, name: str, memory: int = 15 * 2**30, free: int | None = None):
        self.name, self.memory, self.free = name, memory, free or memory
        self.capability = (7, 5) if name == "T4" else (8, 0)
        self.syncs = []  # (what, file:line)
        self.sync_mode = "default"
        self.from_gpu = 0  # depth of calls that have a tensor of the GPU among their arguments

    def sync(self, what: str) -> None:
        self.syncs.append((what, _place()))
        if self.sync_mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {what} at {_place()}")
        if self.sync_mode == "warn":
            warnings.warn(f"called a synchronizing CUDA operation: {what}", stacklevel=2)


# Below autograd: every kernel

# Kernels that wait for the GPU, since the CPU needs the result to continue.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique_consecutive",
    "_unique2",
    "unique_dim",
    "bincount",
    "repeat_interleave",
    "_linalg_check_errors",
}
# Copies may have tensors of both devices.
COPIES = {"copy_", "_to_copy", "_copy_from", "lift_fresh", "lift_fresh_copy", "set_", "detach", "alias"}


SLOW_IN_FLOAT16 = {"convolution", "convolution_backward", "addmm", "mm", "bmm"}


class _Kernels(TorchDispatchMode):
    def __init__(self, gpu: Gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, operator, types_, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        if any(t.device.type == "meta" for t in given):
            return operator(*args, **kwargs)
        here = [is_marked(t) for t in given]
        name = operator.overloadpacket.__name__
        if any(here):
            self._check(name, args, given, here)
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type == "cpu":
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        elif not given and self.gpu.from_gpu and "device" in kwargs and kwargs["device"] in (None, CPU):
            here = [True]  # a kernel made of others asks for memory beside its inputs
        if name in SLOW_IN_FLOAT16 and given[0].dtype is torch.float16:
            # The CPU's kernels are very slow. As on a GPU, sums are in float32 and results in float16.
            args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs))
            result = tree_map_only(torch.Tensor, torch.Tensor.half, operator(*args, **kwargs))
        else:
            result = operator(*args, **kwargs)
        if any(here):
            for tensor in tensors_in(result):
                if mark(tensor).nbytes > self.gpu.memory:
                    raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tensor.nbytes} bytes.")
        return result

    def _check(self, name, args, given, here) -> None:
        if name in WAITING or (
            name.startswith("index")
            and any(
                t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1:2]) if name in ("index", "index_put_")
            )
        ):
            self.gpu.sync(name)
        if all(here) or name in COPIES:
            return
        others = [t for t, on_gpu in zip(given, here, strict=True) if not on_gpu]
        if all(t.dim() == 0 for t in others) and not (name.endswith("_") and not here[0]):
            return  # a number on the CPU goes with everything
        if (
            name in ("index", "index_put_", "_unsafe_index")
            and here[0]
            and all(t.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8) for t in others)
        ):
            self.gpu.sync(f"{name} with indices on the CPU")
            return
        if name in ("index",) and not here[0]:
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name}, "
            f"shapes {[tuple(t.shape) for t in given]}, on the GPU: {here})"
        )


# Above autograd: what Python asks


class _Python(TorchFunctionMode):
    def __init__(self, gpu: Gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function, types_, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(function)
        if special is not None:
            return special(self.gpu, function, args, kwargs)
        on_gpu = any(is_marked(t) for t in tensors_in((args, kwargs)))
        device = kwargs.get("device")
        if device is not None and _type(device) == "cuda":  # a factory
            if _type(getattr(kwargs.get("generator"), "device", "cuda")) == "cpu":
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
            kwargs["device"] = CPU
            if function in (torch.tensor, torch.as_tensor, torch.asarray):
                self.gpu.sync(f"{function.__name__}(..., device='cuda')")
                args = (args[0].clone() if isinstance(args[0], torch.Tensor) else args[0], *args[1:])
            return tree_map_only(torch.Tensor, mark, function(*args, **kwargs))
        with self.counting(on_gpu):
            result = function(*args, **kwargs)
        if on_gpu and not (device is not None and _type(device) == "cpu"):
            tree_map_only(torch.Tensor, mark, result)
        return result

    @contextlib.contextmanager
    def counting(self, on_gpu: bool):
        self.gpu.from_gpu += on_gpu
        try:
            yield
        finally:
            self.gpu.from_gpu -= on_gpu


def _type(device) -> str:
    return (
        device.type
        if isinstance(device, torch.device)
        else "cuda"
        if isinstance(device, int)
        else str(device).split(":")[0]
    )


def _device_of(gpu, function, args, kwargs):
    device = function(*args)
    return CUDA if device == CPU and is_marked(args[0]) else device


def _to(gpu, function, args, kwargs):
    """Tensor.to, .cuda and .cpu: a copy if the device changes."""
    tensor, *rest = args
    name = getattr(function, "__name__", "")
    if name in ("cuda", "cpu"):
        target, rest, kwargs = name, [], {k: v for k, v in kwargs.items() if k == "memory_format"}
    else:
        target = kwargs.pop("device", None)
        if target is None and rest and isinstance(rest[0], (str, torch.device, int)) and not isinstance(rest[0], bool):
            target = rest.pop(0)
        elif target is None and rest and isinstance(rest[0], torch.Tensor):
            other = rest.pop(0)
            target, kwargs["dtype"] = ("cuda" if is_marked(other) else "cpu"), other.dtype
    kwargs |= dict(zip(("dtype", "non_blocking", "copy"), rest, strict=False))  # the rest of what is given by position
    non_blocking = kwargs.pop("non_blocking", False)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    was, target = is_marked(tensor), None if target is None else _type(target)
    if tensor.device.type == "meta" or target == "meta":
        return function(*args, **kwargs)
    becomes = was if target is None else target == "cuda"
    if was != becomes:
        if not non_blocking:
            gpu.sync("copy to the GPU" if becomes else "copy to the CPU")
        kwargs["copy"] = True
    result = torch.Tensor.to(tensor, **kwargs) if kwargs else tensor
    return mark(result) if becomes else _unmark(result)


def _unmark(tensor):
    if tensor.layout is torch.strided:
        setattr(tensor.untyped_storage(), MARK, False)
    return tensor


def _needs_the_cpu(gpu, function, args, kwargs):
    if is_marked(args[0]):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory."
        )
    return function(*args, **kwargs)


def _list(gpu, function, args, kwargs):
    if is_marked(args[0]):
        gpu.sync("tolist")
        args = (args[0].clone(),)
        _unmark(args[0])
    return function(*args, **kwargs)


_SPECIAL = {
    torch.Tensor.device.__get__: _device_of,
    torch.Tensor.is_cuda.__get__: lambda gpu, f, args, kwargs: is_marked(args[0]),
    torch.Tensor.is_cpu.__get__: lambda gpu, f, args, kwargs: f(*args) and not is_marked(args[0]),
    torch.Tensor.get_device: lambda gpu, f, args, kwargs: 0 if is_marked(args[0]) else -1,
    torch.Tensor.to: _to,
    torch.Tensor.cuda: _to,
    torch.Tensor.cpu: _to,
    torch.Tensor.numpy: _needs_the_cpu,
    torch.Tensor.__array__: _needs_the_cpu,
    torch.Tensor.tolist: _list,
}


# Torch.cuda and what else knows of devices


def _patches(gpu: Gpu):
    properties = types.SimpleNamespace(
        name=gpu.name,
        major=gpu.capability[0],
        minor=gpu.capability[1],
        total_memory=gpu.memory,
        multi_processor_count=40,
    )
    cuda, optimizer = torch.cuda, torch.optim.Optimizer
    autocast, group = torch.amp.autocast_mode.autocast, optimizer._group_tensors_by_device_and_dtype

    class Autocast(autocast):
        def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):
            super().__init__("cpu" if device_type == "cuda" else device_type, dtype, enabled, cache_enabled)

    def set_sync_debug_mode(mode):
        gpu.sync_mode = {0: "default", 1: "warn", 2: "error"}.get(mode, mode)

    def grouped(lists, with_indices=False):
        found = {}
        for (device, dtype), content in group(lists, with_indices).items():
            first = next(t for tensors in content[0] for t in tensors if t is not None)
            found[CUDA if is_marked(first) else device, dtype] = content
        return found

    state = {"rng": torch.zeros(16, dtype=torch.uint8)}
    yield (
        cuda,
        {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "is_initialized": lambda: True,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: gpu.syncs.append(("synchronize", _place())),
            "get_device_name": lambda device=None: gpu.name,
            "get_device_properties": lambda device=None: properties,
            "get_device_capability": lambda device=None: gpu.capability,
            "mem_get_info": lambda device=None: (gpu.free, gpu.memory),
            "max_memory_allocated": lambda device=None: 10**9,
            "reset_peak_memory_stats": lambda device=None: None,
            "is_current_stream_capturing": lambda: False,
            "set_sync_debug_mode": set_sync_debug_mode,
            "get_rng_state_all": lambda: [state["rng"].clone()],
            "set_rng_state_all": lambda states: state.update(rng=states[0].clone() if states else state["rng"]),
            "get_rng_state": lambda device="cuda": state["rng"].clone(),
            "set_rng_state": lambda new, device="cuda": state.update(rng=new.clone()),
            "manual_seed_all": lambda seed: None,
            "manual_seed": lambda seed: None,
            "empty_cache": lambda: None,
            "utilization": lambda device=None: 80,
        },
    )
    yield torch, {"autocast": Autocast}
    yield torch.amp, {"autocast": Autocast}
    yield optimizer, {"_group_tensors_by_device_and_dtype": staticmethod(grouped)}


def _tag(storage):
    storage = storage if isinstance(storage, torch.UntypedStorage) else storage.untyped()
    return "cuda:0" if getattr(storage, MARK, False) else None


def _restore(storage, location):
    if location.startswith("cuda"):
        setattr(storage, MARK, True)
        return storage
    return None


_registered = False


@contextlib.contextmanager
def pretend_gpu(name: str = "T4", **memory):
    """Within this context there is a GPU, `name` is "T4" (float16) or "A100" (bfloat16): see the top of this file."""
    global _registered
    gpu = Gpu(name, **memory)
    if not _registered:
        torch.serialization.register_package(0, _tag, _restore)  # files remember what was on the GPU
        _registered = True
    with contextlib.ExitStack() as stack:
        for owner, new in _patches(gpu):
            for attribute, value in new.items():
                old = owner.__dict__[attribute]
                stack.callback(setattr, owner, attribute, old)
                setattr(owner, attribute, value)
        stack.enter_context(_Kernels(gpu))
        stack.enter_context(_Python(gpu))
        yield gpu


def install(name: str = "T4", **memory) -> Gpu:
    """As `pretend_gpu`, until the process ends."""
    context = pretend_gpu(name, **memory)
    sys.modules[__name__]._kept = context
    return context.__enter__()
