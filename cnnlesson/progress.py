"""What a search shows while it runs: a bar for the grid, one for the running trial, and in a notebook a table."""

import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack

import pandas as pd
from tqdm.auto import tqdm

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.runtime.display import output_area
from cnnlesson.training import Epoch

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Shows how far a search is; use it as a context.

    Args:
        num_points: of the grid.
        num_ended: that need not be run any more.
        table: gives the state of all points, for a notebook.
        here: whether trials run in this process, one at a time: then there is a bar for the batches of the trial.
        epochs: of a trial, as far as is known before the first one ends.
    """

    def __init__(self, num_points: int, num_ended: int, table: Callable[[], pd.DataFrame], here: bool, epochs: int = 1):
        self.table = table
        self.epochs = epochs
        self.place = output_area()
        # Without a notebook, bars are for a terminal alone (None): in a file they would be a line an update.
        off = num_ended == num_points or (None if self.place is None else False)
        self.grid = tqdm(total=num_points, initial=num_ended, desc="grid", bar_format=_BAR, disable=off)
        self.trial = tqdm(total=1, desc="trial", bar_format=_BAR, leave=False, disable=off) if here else None
        self.running = {}  # how many epochs each running trial has made
        self._stack = ExitStack()

    def __enter__(self) -> "Progress":
        if self.trial is not None:
            self._stack.enter_context(watch_batches(self._batch))
            self._stack.callback(self.trial.close)
        self._stack.callback(self.grid.close)
        self._show_table()
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        self.running[name] = 0
        if self.trial is not None:
            self.trial.reset(total=1)
            self.trial.set_postfix_str("", refresh=False)
            self.trial.set_description_str(name)
        self._show_table()

    def epoch(self, name: str, epoch: Epoch) -> None:
        self.running[name], self.epochs = epoch.number, epoch.epochs
        words = f"epoch {epoch.number} of {epoch.epochs}, validation {epoch.val_accuracy:.1%}"
        if self.trial is not None:
            self.trial.set_postfix_str(words, refresh=False)
            self._fill(self.trial, epoch.number / self.epochs)
        else:
            self.grid.set_postfix_str(f"{name}: {words}")
        self._show_table()

    def end(self, name: str, words: str) -> None:
        del self.running[name]
        self.grid.update()
        self.say(f"{name}: {words}")
        self._show_table()

    def drop(self, name: str, words: str) -> None:
        """The trial did not end here, and counts for nothing."""
        del self.running[name]
        self.say(f"{name}: {words}")

    def say(self, text: str) -> None:
        if self.place is not None:  # a notebook would break long lines within words
            text = textwrap.fill(text, 110, subsequent_indent="    ")
        tqdm.write(text, file=sys.stdout)

    def _batch(self, batches: Batches, number: int) -> bool:
        is_training = batches.seed is not None  # validation batches are not shuffled
        if self.running and is_training:
            done = next(iter(self.running.values()))
            self._fill(self.trial, (done + number / len(batches)) / self.epochs)
        return True

    @staticmethod
    def _fill(bar: tqdm, share: float) -> None:
        bar.update(share - bar.n)

    def _show_table(self) -> None:
        if self.place is not None:
            table = self.table()
            page = table.to_html(index=False, na_rep="", border=0)
            self.place.update({"text/html": page, "text/plain": table.to_string(index=False)}, raw=True)
