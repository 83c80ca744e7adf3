"""What a check reports about an answer, and how it runs the answer safely."""

import copy
import functools
import html
import operator
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from cnnlesson.runtime.display import in_notebook, one_line

SECONDS = 20  # time limit for an answer, over all inputs of its check
STATUSES = {
    "right": ("✔", "right", "#009E73"),
    "wrong": ("✘", "not right yet", "#D55E00"),
    "unanswered": ("○", "not answered yet", "#767676"),
}


@dataclass(frozen=True)
class Verdict:
    """What a check found out about an answer."""

    exercise: str
    status: str  # "right", "wrong" or "unanswered"
    message: str  # what is wrong and where to look; may be empty

    @property
    def right(self) -> bool:
        return self.status == "right"

    def __str__(self) -> str:
        icon, text, _ = STATUSES[self.status]
        return f"{icon} {self.exercise}: {text}" + (f". {self.message}" if self.message else "")

    def _repr_html_(self) -> str:
        icon, text, colour = STATUSES[self.status]
        message = f"<div>{html.escape(self.message)}</div>" if self.message else ""
        return (
            f'<div role="status" style="border-left: 6px solid {colour}; padding: 0.4em 0.8em; margin: 0.4em 0">'
            f"<strong>{icon} {html.escape(self.exercise)}: {text}</strong>{message}</div>"
        )

    def _ipython_display_(self) -> None:
        """Show nothing: the check has shown the verdict, and a notebook would repeat it as the value of the cell."""


class Wrong(Exception):  # noqa: N818, not a failure of the check
    """Raised by a check if the answer is wrong. The message names the mistake and where to look."""


class Unanswered(Exception):  # noqa: N818
    """Raised by a check if a part of the answer is missing. The message says which."""


class CheckError(AssertionError):
    """Raised after a verdict if CNNLESSON_CHECKS asks for it."""


class _TooSlow(BaseException):
    """Stops an answer that does not return. No `except Exception` in the answer catches it."""


_verdicts: dict[str, dict[str, Verdict | None]] = {}  # by module, in the order of the exercises


Results = Callable | Iterable  # a function, or its results for all cases


def exercise(check: Callable) -> Callable[..., Verdict]:
    """Make a check of a function that tries an answer and raises `Wrong` or `Unanswered`, or returns if it is right.

    The check itself never raises, whatever the answer does. It leaves the answer and all random states unchanged.
    """
    name = check.__name__
    verdicts = _verdicts.setdefault(check.__module__, {})
    verdicts[name] = None

    @functools.wraps(check)
    def judged(*answers) -> Verdict:
        verdict = verdicts[name] = Verdict(name, *_judge(check, answers))
        _show(verdict)
        required = {"strict": "right", "untouched": "unanswered"}.get(os.environ.get("CNNLESSON_CHECKS", ""))
        if required and verdict.status != required:
            raise CheckError(str(verdict))
        return verdict

    return judged


def progress(module: str) -> None:
    """Print the student's progress: a line for each exercise of a module of checks."""
    verdicts = _verdicts[module]
    done = sum(verdict is not None and verdict.right for verdict in verdicts.values())
    print(f"{done} of {len(verdicts)} exercises are right.")
    for name, verdict in verdicts.items():
        icon, text, _ = STATUSES[verdict.status if verdict else "unanswered"]
        print(f"{icon} {name}: {text}")


def expect(
    answer: Results, cases: Sequence, right: Results, mistakes: Mapping, same: Callable = operator.eq, name: str = ""
) -> None:
    """Raise `Wrong` unless `answer` returns what `right` returns, in all `cases`.

    `mistakes` maps messages to functions that make the mistake. The first one that agrees with the answer in all
    cases names the mistake. If none agrees, the message shows the first case that differs, as a call of `name`.
    Each function may also be the sequence of its results, one per case.
    """

    def results(function: Results) -> list:
        return [function(*case) for case in cases] if callable(function) else list(function)

    def all_same(given: list, expected: list) -> bool:
        return all(map(same, given, expected))

    given, expected = plain(results(answer)), results(right)
    if all_same(given, expected):
        return
    reject(given, {message: results(mistaken) for message, mistaken in mistakes.items()}, all_same)
    case, result = next((c, g) for c, g, e in zip(cases, given, expected, strict=True) if not same(g, e))
    call = f"{name or getattr(answer, '__name__', 'your answer')}({', '.join(map(_short, case))})"
    raise Wrong(f"{call} is {_short(returned(result))}, which is not right: work that case out by hand.")


def reject(given: object, mistakes: Mapping[str, object], same: Callable[[object, object], bool], *inputs) -> None:
    """Raise `Wrong` with the message of the first of `mistakes`, a result or a function of `inputs`, that is given."""
    for message, mistaken in mistakes.items():
        if same(given, mistaken(*inputs) if callable(mistaken) else mistaken):
            raise Wrong(message)


def plain(result: object) -> object:
    """The result with numbers in place of tensors and arrays of at most one dimension, also inside lists and tuples."""
    if isinstance(result, torch.Tensor | np.ndarray | np.generic) and result.ndim <= 1:
        return result.tolist()
    return type(result)(map(plain, result)) if type(result) in (list, tuple) else result


def returned(result: object) -> object:
    """The result of an answer; raises `Wrong` for None."""
    if result is None:
        raise Wrong("It returns None: does the function end with a return?")
    return result


def filled_in(answer: object, keys: Collection[str]) -> dict:
    """The answer; raises `Wrong` unless it is a dict with these keys, and `Unanswered` if a value is still empty."""
    if not isinstance(answer, dict) or set(answer) != set(keys):
        raise Wrong(f"Expected a dict with the keys {', '.join(map(repr, keys))}.")
    empty = [key for key in keys if _is_empty(answer[key])]
    if empty:
        raise Unanswered(f"Still empty: {', '.join(empty)}.")
    return {key: plain(value) for key, value in answer.items()}


def _is_empty(value: object) -> bool:
    return value is None or value is ... or (isinstance(value, tuple | list) and any(map(_is_empty, value)))


def same_integer(given: object, expected: object) -> bool:
    """Equal, and both integers or neither: 56.0 is not the same as 56."""
    return isinstance(given, Integral) == isinstance(expected, Integral) and given == expected


def _short(value: object) -> str:
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _judge(check: Callable, answers: Sequence) -> tuple[str, str]:
    """The status and the message of a verdict."""
    if any(answer is None or answer is ... for answer in answers):
        return "unanswered", ""
    if any(map(_is_the_packages, answers)):
        return "wrong", "That is the package's own: write yours, and hand it to the check."
    try:
        with _unchanged_state(), _time_limit(), _own_versions(check, answers):
            check(*(answer if callable(answer) else copy.deepcopy(answer) for answer in answers))
    except NotImplementedError as error:
        # torch raises it too, with a message: for a module without a forward method, or for the mean of integers.
        is_placeholder = not error.args and _own_frames(error)[-1:] == traceback.extract_tb(error.__traceback__)[-1:]
        return ("unanswered", "") if is_placeholder else ("wrong", _describe(error))
    except Unanswered as missing:
        return "unanswered", str(missing)
    except Wrong as wrong:
        return "wrong", str(wrong)
    except _TooSlow:
        return "wrong", f"It did not return within {SECONDS} seconds: is there a loop that never ends?"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the answer raises, including sys.exit()
        return "wrong", _describe(error)
    return "right", ""


def _is_the_packages(answer: object) -> bool:
    while isinstance(answer, functools.partial):
        answer = answer.func
    return str(getattr(answer, "__module__", "")).startswith("cnnlesson.")


def _describe(error: BaseException) -> str:
    """An error in the answer, with the line of the student's code that raised it."""
    own = _own_frames(error)
    line = f" (in your line {own[-1].lineno}: {own[-1].line})" if own and own[-1].line else ""
    return f"It raised {one_line(error)}{line}"


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the error's traceback that are the student's code."""
    libraries = (str(Path(__file__).parents[1]), str(Path(os.__file__).parent), sys.prefix, sys.base_prefix, "<frozen")
    return [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(libraries)]


@contextmanager
def _own_versions(check: Callable, answers: Sequence) -> Iterator[None]:
    """Let an answer that calls another exercise use the lesson's version of it, unless the student's is right."""
    module = sys.modules[check.__module__]
    replaced = []
    for answer in answers:
        names = getattr(answer, "__globals__", None) or vars(sys.modules.get(getattr(answer, "__module__", ""), module))
        for name, version in getattr(module, "OWN_VERSIONS", {}).items():
            done = _verdicts[check.__module__][name]
            if name in names and name != check.__name__ and not (done and done.right):
                replaced.append((names, name, names[name]))
                names[name] = version
    try:
        yield
    finally:
        for names, name, students in reversed(replaced):
            names[name] = students


@contextmanager
def _unchanged_state() -> Iterator[None]:
    """Start with gradients on and float32, whatever the student has set. Restore that and all random states."""
    python, numpy, grad = random.getstate(), np.random.get_state(), torch.is_grad_enabled()
    dtype = torch.get_default_dtype()
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise `_TooSlow` in the block after `SECONDS`.

    This needs the main thread, and signals that Windows lacks. Elsewhere only the stop button ends an endless loop.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*signal_and_frame) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # repeats every second, for an answer that swallows it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _show(verdict: Verdict) -> None:
    """A panel in a notebook, a line of text elsewhere."""
    if in_notebook():
        from IPython.display import display

        display({"text/html": verdict._repr_html_(), "text/plain": str(verdict)}, raw=True)
    else:
        print(verdict)
