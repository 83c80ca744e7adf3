"""Everything that a training needs to continue where it stopped, in one file."""

import os
from collections.abc import Iterable
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnlesson.runtime.atomic import advice, atomic_write, make_folder, remove_unfinished
from cnnlesson.runtime.device import gradient_scaler


class CheckpointError(OSError):
    """A checkpoint cannot be written, for example because the disk is full."""


class Checkpoint:
    """The state of one training, kept in the file `path`.

    It holds the model, the optimizer, the scheduler, the gradient scaler, torch's random number generators and the
    finished epochs. On a CPU, with the same number of threads, a training that resumes from it ends with weights that
    are bitwise identical to those of an uninterrupted one.

    Create it before the first step: it records the settings of the training, and refuses a file with other settings.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        train_batches: Iterable,
    ):
        self.path = Path(path)
        model = getattr(model, "_orig_mod", model)  # the module that torch.compile has wrapped
        self.parts = {"model": model, "optimizer": optimizer}
        if scheduler is not None:
            self.parts["scheduler"] = scheduler
        self.scaler = gradient_scaler(model, optimizer)
        batches = {"length": length_hint(train_batches, -1)}
        if hasattr(train_batches, "fingerprint"):
            batches = train_batches.fingerprint()
        self.settings = {
            "optimizer": type(optimizer).__name__,
            "parameter groups": len(optimizer.param_groups),
            **_flatten([group | {"params": len(group["params"])} for group in optimizer.param_groups], "optimizer"),
            "scheduler": scheduler and type(scheduler).__name__,
            **_flatten(scheduler.state_dict() if scheduler else {}, "scheduler"),
            **_flatten(batches, "batches"),
            **{f"model.{name}": str(tuple(value.shape)) for name, value in model.state_dict().items()},
        }

    def save(self, history: list[dict]) -> None:
        """Write the state after the epochs of `history`, which are dicts of plain numbers.

        Raises:
            CheckpointError: the file cannot be written; the state after the previous epoch is still there.
        """
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content |= {"scaler": self.scaler.state_dict(), "settings": self.settings, "history": history}
        content["random_cpu"] = torch.get_rng_state()
        content["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        make_folder(self.path.parent)
        try:
            with atomic_write(self.path) as unfinished:
                torch.save(content, unfinished)
        except (OSError, RuntimeError) as error:  # torch.save reports some failed writes as RuntimeError
            raise CheckpointError(
                f"the checkpoint {self.path} could not be written ({error}): {advice(error)}, or name another "
                "folder, and run again"
            ) from error

    def load(self) -> list[dict]:
        """Restore the state in the file, and return the finished epochs. Without a file, return an empty list.

        Unfinished files that killed processes have left are removed.

        Raises:
            ValueError: the file is damaged, or belongs to another training.
        """
        remove_unfinished(self.path)
        if not self.path.exists():
            return []
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            difference = _difference(content["settings"], self.settings)
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(
                f"the checkpoint {self.path} is damaged or of an older version: delete it to start from scratch"
            ) from error
        if difference:
            raise ValueError(
                f"the checkpoint {self.path} is of another training ({difference}): name another file, or delete it "
                "to start from scratch"
            )
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        # Only float16 needs a scaler: if the file comes from a device that computes in another type, it has no state.
        if content.get("scaler"):
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random_cpu"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["random_cuda"][: torch.cuda.device_count()])
        return content["history"]


def _flatten(value: Any, name: str) -> dict[str, float | str | None]:
    """The plain values in nested dicts and lists, such as {"scheduler.total_steps": 90}; others are left out."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        items = [(f"{name}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(name if len(value) == 1 else f"{name}.{index}", item) for index, item in enumerate(value)]
    else:
        return {name: value} if value is None or isinstance(value, int | float | str) else {}
    flat = {}
    for item_name, item in items:
        flat |= _flatten(item, item_name)
    return flat


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first setting that differs, such as "batches.batch_size was 64, now it is 32"; None if all are equal."""
    for name in before | now:
        there, here = before.get(name), now.get(name)
        # Optimizers have options, and schedulers private attributes, that only some versions of torch know.
        is_of_a_version = name.startswith("optimizer.") or name.rpartition(".")[2].startswith("_")
        is_unknown = is_of_a_version and not (name in before and name in now)
        if there != here and not is_unknown:
            there, here = (f"{value:g}" if isinstance(value, float) else value for value in (there, here))
            return f"{name} was {there}, now it is {here}"
    return None
