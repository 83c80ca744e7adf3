"""What has changed since a journal was written: refused in settings, told in the code, the data and the grid."""

import functools
import hashlib
import inspect
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType

from cnnlesson.data import ImageSet
from cnnlesson.runtime.device import find_device, training_dtype


def describe_run(run: Callable) -> dict[str, str]:
    """What `run` does, as text to compare: its code, the arguments bound to it by functools.partial, and the dtype."""
    bound = {}
    while isinstance(run, functools.partial):
        bound = dict(zip(inspect.signature(run.func).parameters, run.args, strict=False)) | run.keywords | bound
        run = run.func
    code = "code" if hasattr(run, "__code__") else "class"
    return {name: _describe(value) for name, value in bound.items()} | {
        f"{code} in Python {'.'.join(platform.python_version_tuple()[:2])}": _describe(run),
        "dtype": str(training_dtype(find_device(None))).removeprefix("torch."),
    }


def _describe(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return str(value)
    if isinstance(value, ImageSet):
        return _digest([value.labels.tolist(), value.images[:: max(1, len(value) // 500)].tolist()])
    if hasattr(value, "__code__"):
        return _digest(_parts_of(value, set()))
    if isinstance(value, functools.partial):
        return _digest(describe_run(value))
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _parts_of(function: Callable, seen: set) -> list:
    """The code of a function, and of the functions of its own module that it names."""
    seen.add(function)
    parts = [_instructions(function.__code__), function.__defaults__]
    parts += [
        cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, str | int | float)
    ]
    for name in function.__code__.co_names:
        other = function.__globals__.get(name)
        if inspect.isfunction(other) and other.__module__ == function.__module__ and other not in seen:
            parts.append(_parts_of(other, seen))
    return parts


def _instructions(code: CodeType) -> list:
    constants = [_instructions(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def check_launch(path: Path, records: Sequence[dict], launch: Mapping) -> Iterator[str]:
    """What the user must know before results of `launch` join those of the journal `path`.

    Raises:
        ValueError: the journal has other settings, or a grid over other names.
    """
    launches = [record["launch"] for record in records if "launch" in record]
    if not launches:
        return
    before = launches[-1]
    if changes := _changes(before["settings"], launch["settings"]):
        raise ValueError(f"{path} holds trials of other settings ({changes}): name another file")
    if before["grid"].keys() != launch["grid"].keys():
        names, now = ", ".join(before["grid"]), ", ".join(launch["grid"])
        raise ValueError(f"{path} holds trials over {names}, now the grid is over {now}: name another file")
    same_values = all({*before["grid"][name]} == {*launch["grid"][name]} for name in launch["grid"])
    if not same_values:
        yield f"the grid has changed ({_changes(before['grid'], launch['grid'])}): what has ended of the old one stays"
    if changes := _changes(before["run"], launch["run"]):
        yield (
            f"run has changed since {path} was written ({changes}): the trials that have ended keep their old results. "
            "To train them again, name another file"
        )


def _changes(before: Mapping, now: Mapping) -> str:
    """What differs, such as "epochs 3, now 5"."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {_text(before.get(name))}, now {_text(now.get(name))}" for name in names)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
