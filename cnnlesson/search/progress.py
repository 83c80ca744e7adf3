"""What a search shows while it runs: a bar for the grid, one for the running trial, and in a notebook a table."""

import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack

from tqdm.auto import tqdm

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.runtime.display import output_area
from cnnlesson.training import Epoch

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Shows how far a search is; use it as a context.

    Args:
        num_points: of the grid.
        num_ended: points that are not run again.
        table: returns the state of all points, for a notebook.
        one_by_one: whether trials run in this process, one after the other: then their batches have a bar.
        epochs: per trial, if it is known before the first one ends.
    """

    def __init__(self, num_points: int, num_ended: int, table: Callable, one_by_one: bool, epochs: int):
        self.table = table
        self.epochs = epochs
        self.area = output_area()
        # Outside a notebook, bars are only for a terminal (None): in a file they would be a line per update.
        off = num_ended == num_points or (None if self.area is None else False)
        self.grid = tqdm(total=num_points, initial=num_ended, desc="grid", bar_format=_BAR, disable=off)
        self.trial = tqdm(total=1, desc="trial", bar_format=_BAR, leave=False, disable=off if one_by_one else True)
        self.running = {}  # how many epochs each running trial has finished
        self._stack = ExitStack()

    def __enter__(self) -> "Progress":
        self._stack.enter_context(watch_batches(self._batch))
        self._stack.callback(self.grid.close)
        self._stack.callback(self.trial.close)
        self._show_table()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        self.running[name] = 0
        self.trial.reset(total=1)
        self.trial.set_postfix_str("", refresh=False)
        self.trial.set_description_str(name)
        self._show_table()

    def epoch(self, name: str, epoch: Epoch) -> None:
        self.running[name], self.epochs = epoch.number, epoch.epochs
        text = f"epoch {epoch.number} of {epoch.epochs}, validation {epoch.val_accuracy:.1%}"
        self.grid.set_postfix_str(f"{name}: {text}" if self.trial.disable else "")
        self.trial.set_postfix_str(text, refresh=False)
        self._fill(epoch.number / epoch.epochs)
        self._show_table()

    def end(self, name: str, text: str) -> None:
        del self.running[name]
        self.grid.update()
        self.say(f"{name}: {text}")
        self._show_table()

    def say(self, text: str) -> None:
        if self.area is not None:  # a notebook would break long lines within words
            text = textwrap.fill(text, 110, subsequent_indent="    ")
        tqdm.write(text, file=sys.stdout)

    def _batch(self, batches: Batches, number: int) -> bool:
        is_training = batches.seed is not None  # validation batches are not shuffled
        if self.running and is_training:
            finished = next(iter(self.running.values()))
            self._fill((finished + number / len(batches)) / self.epochs)
        return True

    def _fill(self, share: float) -> None:
        self.trial.update(share - self.trial.n)

    def _show_table(self) -> None:
        if self.area is not None:
            table = self.table()
            page = table.to_html(index=False, na_rep="", border=0)
            self.area.update({"text/html": page, "text/plain": table.to_string(index=False)}, raw=True)
