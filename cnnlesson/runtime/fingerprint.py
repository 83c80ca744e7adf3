"""Fingerprints of functions and their arguments, to notice that something has changed between two runs."""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import CodeType


def fingerprint(function: Callable) -> dict[str, str]:
    """The code of a function and the arguments that functools.partial has bound to it, as short texts to compare.

    The code covers the functions of the same module that it calls, not comments and formatting. An argument is compared
    by its value if it is a plain one, by its own `fingerprint()` if it has one, and otherwise by its type.
    """
    bound = {}
    while isinstance(function, functools.partial):
        names = inspect.signature(function.func).parameters
        bound = dict(zip(names, function.args, strict=False)) | function.keywords | bound
        function = function.func
    # The same code compiles to other instructions in another version of Python.
    name = f"code in Python {sys.version_info[0]}.{sys.version_info[1]}"
    return {name: _describe(function), **{name: _describe(value) for name, value in bound.items()}}


def _describe(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return str(value)
    if hasattr(value, "fingerprint"):
        return str(value.fingerprint())
    if callable(value) and hasattr(value, "__code__"):
        return _digest(_code_of(value, set()))
    if isinstance(value, functools.partial):
        return _digest(fingerprint(value))
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _code_of(function: Callable, seen: set) -> list:
    seen.add(function)
    found: list = [_instructions(function.__code__), function.__defaults__]
    found += [_describe(cell.cell_contents) for cell in function.__closure__ or ()]
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if inspect.isfunction(called) and called.__module__ == function.__module__ and called not in seen:
            found.append(_code_of(called, seen))
    return found


def _instructions(code: CodeType) -> list:
    constants = [_instructions(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def changes_between(before: Mapping, now: Mapping) -> str:
    """What differs between two dictionaries of plain values, such as "epochs 3, now 5"; empty if nothing does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    text = ((name, str(before.get(name)).strip("[]"), str(now.get(name)).strip("[]")) for name in names)
    return "; ".join(f"{name} {old}, now {new}" for name, old, new in text)
