"""One trial: a call of the user's `run` at one point, with what goes wrong in it told in one line."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.device import busy_share
from cnnlesson.training import Epoch


class TrialError(ValueError):
    """A trial cannot be finished; the text is the reason in one line."""


def epochs_of(run: Callable, point: dict, checkpoint: Path) -> Iterator[tuple[Epoch, float | None]]:
    """The epochs of one trial, `run(**point)`, and with `checkpoint` too if that is one of its parameters.

    Each comes with the share of its time in which the device worked: see `busy_share`.

    Raises:
        TrialError: `run` has raised, or has yielded something else.
        CheckpointError: the disk is full, which is not the trial's fault.
    """
    num_epochs = 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        takes_checkpoint = "checkpoint" in inspect.signature(run).parameters
        with busy_share(device) as busy:
            for epoch in run(**point, checkpoint=checkpoint) if takes_checkpoint else run(**point):
                if not isinstance(epoch, Epoch):
                    raise TypeError(f"run must yield each Epoch, as train does, but it yields a {type(epoch).__name__}")
                num_epochs += 1
                yield epoch, busy()
    except CheckpointError:
        raise
    except Exception as error:
        raise TrialError(one_line(error)) from error
    if num_epochs == 0:
        raise TrialError("run has yielded no Epoch")


def one_line(error: Exception) -> str:
    """What an error says, in one line; running out of memory is worded by the package, and needs no name of a type."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
