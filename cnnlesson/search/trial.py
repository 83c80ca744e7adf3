"""One trial: a call of the user's `run` at one point, with whatever goes wrong in it told in one line."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.display import one_line
from cnnlesson.training import Epoch


class TrialError(ValueError):
    """A trial cannot be finished; the text is the reason in one line."""


def epochs_of(run: Callable, point: Mapping, checkpoint: Path) -> Iterator[Epoch]:
    """The epochs of one trial, `run(**point)`, called with `checkpoint` too if that is one of its parameters.

    Raises:
        TrialError: `run` has raised, or has yielded something else.
        CheckpointError: the disk is full, which is not the trial's fault.
    """
    num_epochs = 0
    try:
        takes_checkpoint = "checkpoint" in inspect.signature(run).parameters
        for epoch in run(**point, checkpoint=checkpoint) if takes_checkpoint else run(**point):
            if not isinstance(epoch, Epoch):
                raise TypeError(f"run must yield each Epoch, as train does, but it yields a {type(epoch).__name__}")
            num_epochs += 1
            yield epoch
    except CheckpointError:
        raise
    except (Exception, SystemExit) as error:
        raise TrialError(one_line(error)) from error
    if num_epochs == 0:
        raise TrialError("run has yielded no Epoch")
