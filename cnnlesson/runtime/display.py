"""What a person reads: messages in one line, numbers with their nouns, and the output area of a notebook cell."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import DisplayHandle


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def output_area() -> "DisplayHandle | None":
    """An area in the output of the current notebook cell that can be updated, or None outside a notebook.

    It is IPython's DisplayHandle: `area.update({"text/html": ..., "text/plain": ...}, raw=True)` replaces its content.
    """
    if not in_notebook():
        return None
    from IPython.display import display

    return display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)


def one_line(error: BaseException) -> str:
    """The type and message of an error in one line; out-of-memory messages need no type."""
    text = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Such as "1 trial" and "9 trials"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Such as "45 seconds", "2.5 minutes" and "1.6 hours"."""
    if seconds < 90:
        return count(round(seconds), "second")
    return f"{seconds / 60:.1f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
