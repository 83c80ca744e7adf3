"""All that a training needs to go on where it stopped, in one file."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from cnnlesson.runtime.atomic import atomic_write, make_folder, remove_unfinished


class CheckpointError(OSError):
    """A checkpoint cannot be written, such as on a full disk."""


class Checkpoint:
    """The state of one training, kept in the file `path`.

    It holds the model, the optimizer, the scheduler, the gradient scaler, torch's random numbers and the finished
    epochs. On a CPU, with the same number of threads, a training that resumes from it ends with weights that are
    bitwise identical to those of an uninterrupted one.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        scaler: torch.amp.GradScaler,
        train_batches: Iterable,
    ):
        self.path = Path(path)
        model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
        self.parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        self.train_batches = train_batches
        # The optimizer's settings before the first step: a scheduler changes them later.
        self.settings = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]

    def save(self, history: list[dict]) -> None:
        """Write the state after the epochs of `history` (plain numbers alone), whole or not at all.

        Raises:
            CheckpointError: the file cannot be written; the state of the epoch before stays.
        """
        content = {
            "history": history,
            "settings": self.settings,
            "random": _random_state(),
        }
        content |= {name: None if part is None else part.state_dict() for name, part in self.parts.items()}
        make_folder(self.path.parent)
        try:
            with atomic_write(self.path) as unfinished:
                torch.save(content, unfinished)
        except (OSError, RuntimeError) as error:  # torch.save reports some failed writes as RuntimeError
            raise CheckpointError(
                f"the checkpoint {self.path} could not be written ({error}): free some room on that disk, or name "
                "another folder, and run again"
            ) from error

    def load(self) -> list[dict]:
        """Take up the state in the file, and return the epochs made so far; where there is no file, none.

        What a killed process left unfinished beside it is removed.

        Raises:
            ValueError: the file is damaged, or of another network or optimizer.
        """
        remove_unfinished(self.path)
        if not self.path.exists():
            return []
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            settings = content["settings"]
        except Exception as error:  # whatever a damaged file raises
            raise ValueError(
                f"the checkpoint {self.path} is damaged: delete it, and the training starts anew"
            ) from error
        if settings != self.settings:
            raise ValueError(
                f"the checkpoint {self.path} is of another training ({self._difference(settings)}): name another "
                "file, or delete it"
            )
        try:
            for name, part in self.parts.items():
                if part is not None:
                    part.load_state_dict(content[name])
        except Exception as error:  # other layers, other shapes, no scheduler
            raise ValueError(
                f"the checkpoint {self.path} is of another network or optimizer: name another file, or delete it"
            ) from error
        _set_random_state(content["random"])
        return content["history"]

    def _difference(self, settings: list[dict]) -> str:
        """The optimizer's first setting that is not as in the file."""
        for theirs, ours in zip(settings, self.settings, strict=False):
            for name in ours:
                if theirs.get(name) != ours[name]:
                    there, here = (
                        f"{value:g}" if isinstance(value, float) else value for value in (theirs.get(name), ours[name])
                    )
                    return f"there {name} is {there}, here {here}"
        return "its optimizer has other groups of parameters"


def _random_state() -> dict:
    """Where torch's random numbers are, on the processor and on each GPU."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _set_random_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
