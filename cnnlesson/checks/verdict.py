"""What a check says, and how it tries an answer without being hurt by it."""

import copy
import functools
import html
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

SECONDS = 20  # that an answer may take to run on all inputs of its check
STATUSES = {"right": ("✔", "right", "#009E73"), "wrong": ("✘", "not right yet", "#D55E00")}
STATUSES["unanswered"] = ("○", "not answered yet", "#767676")


@dataclass(frozen=True)
class Verdict:
    """What a check found about one answer."""

    exercise: str
    status: str  # "right", "wrong" or "unanswered"
    message: str  # what is wrong and where to look; empty where there is nothing to say

    @property
    def right(self) -> bool:
        return self.status == "right"

    def __str__(self) -> str:
        icon, words, _ = STATUSES[self.status]
        return f"{icon} {self.exercise}: {words}" + (f". {self.message}" if self.message else "")

    def _repr_html_(self) -> str:
        icon, words, colour = STATUSES[self.status]
        message = f"<div>{html.escape(self.message)}</div>" if self.message else ""
        return (
            f'<div role="status" style="border-left: 6px solid {colour}; padding: 0.4em 0.8em; margin: 0.4em 0">'
            f"<strong>{icon} {html.escape(self.exercise)}: {words}</strong>{message}</div>"
        )

    def _ipython_display_(self) -> None:
        """Nothing: the check has shown it already, and a notebook would show it again as the cell's value."""


class Wrong(Exception):  # noqa: N818, it is no error of ours
    """A check raises this about an answer; the message names the mistake and where to look."""


class Unanswered(Exception):  # noqa: N818
    """A check raises this where a part of the answer is missing; the message says which."""


class CheckError(AssertionError):
    """Raised instead of showing a verdict, where CNNLESSON_CHECKS asks for it."""


class _TooSlow(BaseException):
    """Ends an answer that does not return; no `except Exception` of the answer catches it."""


_verdicts: dict[str, dict[str, Verdict | None]] = {}  # by module, in the order of the exercises


def exercise(check: Callable) -> Callable[..., Verdict]:
    """Make a check of a function that tries an answer, and raises `Wrong` or `Unanswered` where it is not right.

    The check never raises, whatever the answer does, and leaves the answer and all random states as they were.
    """
    name = check.__name__
    verdicts = _verdicts.setdefault(check.__module__, {})
    verdicts[name] = None

    @functools.wraps(check)
    def judged(*answers) -> Verdict:
        verdict = verdicts[name] = Verdict(name, *_judge(check, answers))
        _show(verdict)
        wanted = {"strict": "right", "untouched": "unanswered"}.get(os.environ.get("CNNLESSON_CHECKS", ""))
        if wanted and verdict.status != wanted:
            raise CheckError(str(verdict))
        return verdict

    return judged


def progress(module: str) -> None:
    """Show how far the student is: a line for each exercise of a module of checks."""
    verdicts = _verdicts[module]
    done = sum(verdict is not None and verdict.right for verdict in verdicts.values())
    lines = [f"{done} of {len(verdicts)} exercises are right."]
    for name, verdict in verdicts.items():
        icon, words, _ = STATUSES[verdict.status if verdict else "unanswered"]
        lines.append(f"{icon} {name}: {words}")
    print("\n".join(lines))


def expect(
    answer: Callable,
    cases: Sequence[tuple],
    right: Callable,
    mistakes: Mapping[str, Callable],
    same: Callable[[object, object], bool] = lambda given, expected: given == expected,
) -> None:
    """Compare `answer` with `right` on all `cases`, and raise `Wrong` where they differ.

    `mistakes` are wrong functions by the message that names the mistake: the first that gives what the answer gives,
    in every case, is taken to be the one made. Where none does, the first case that differs is shown.
    """
    given = [answer(*case) for case in cases]
    expected = [right(*case) for case in cases]
    if all(map(same, given, expected)):
        return
    for message, mistaken in mistakes.items():
        if all(map(same, given, (mistaken(*case) for case in cases))):
            raise Wrong(message)
    case, result = next((c, g) for c, g, e in zip(cases, given, expected, strict=True) if not same(g, e))
    if result is None:
        raise Wrong("It returns None: does the function end with a return?")
    arguments = ", ".join(map(_short, case))
    name = getattr(answer, "__name__", "your answer")
    raise Wrong(f"{name}({arguments}) gives {_short(result)}, which is not right: work that case out by hand.")


def same_whole_number(given: object, expected: object) -> bool:
    """Equal, and both of a type for whole numbers or neither: 56.0 is not the same as 56."""
    return isinstance(given, Integral) == isinstance(expected, Integral) and given == expected


def _short(value: object) -> str:
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _judge(check: Callable, answers: Sequence) -> tuple[str, str]:
    """The status and the message of a verdict."""
    if any(answer is None or answer is ... for answer in answers):
        return "unanswered", ""
    try:
        with _unchanged_state(), _time_limit():
            check(*(answer if callable(answer) else copy.deepcopy(answer) for answer in answers))
    except NotImplementedError:
        return "unanswered", ""
    except Unanswered as missing:
        return "unanswered", str(missing)
    except Wrong as wrong:
        return "wrong", str(wrong)
    except _TooSlow:
        return "wrong", f"It did not return within {SECONDS} seconds: is there a loop that never ends?"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the answer raises, sys.exit() too
        return "wrong", _describe(error)
    return "right", ""


def _describe(error: BaseException) -> str:
    """An error in the answer: the student's own line, and what Python said, in one line each."""
    said = " ".join(str(error).split())
    text = f"It raised {type(error).__name__}" + (f": {said}" if said else "")
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    if own and own[-1].line:
        text += f" (in your line {own[-1].lineno}: {own[-1].line})"
    return text


def _is_library(filename: str) -> bool:
    package = str(Path(__file__).parents[1])
    libraries = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(os.__file__).parent)}
    return filename.startswith((package, *libraries, "<frozen"))


@contextmanager
def _unchanged_state() -> Iterator[None]:
    """Give back all random states, and whether torch records gradients, as they were."""
    python, numpy, grad = random.getstate(), np.random.get_state(), torch.is_grad_enabled()
    dtype = torch.get_default_dtype()
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
    """Raise `_TooSlow` in the code within after `SECONDS`.

    It needs the main thread and a system with alarms (Linux, macOS); elsewhere the stop button ends an endless answer.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*signal_and_frame) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # and again each second, for an answer that swallows it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _show(verdict: Verdict) -> None:
    """A panel in a notebook, a line elsewhere."""
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display({"text/html": verdict._repr_html_(), "text/plain": str(verdict)}, raw=True)
            return
    print(verdict)
