"""What a search shows while it runs: a bar in a terminal or a notebook, and in a notebook the table of its points."""

import sys
import textwrap
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.runtime.display import output_area
from cnnlesson.training import Epoch


class Progress:
    """Shows how far a search is; use it as a context.

    Args:
        num_points: of the grid.
        num_ended: points that are not run again.
        table: returns the state of all points, for a notebook.
        epochs: per trial, if it is known before the first epoch ends.
    """

    def __init__(self, num_points: int, num_ended: int, table: Callable, epochs: int):
        self.table, self.epochs = table, epochs
        self.area = output_area()
        self.ended = num_ended
        self.running = {}  # by name, the share of a running trial that is done
        # Outside a notebook, the bar is only for a terminal (None): in a file it would be a line per update.
        off = num_ended == num_points or (None if self.area is None else False)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=num_points, initial=num_ended, desc="grid", bar_format=bar, disable=off)
        self.watcher = watch_batches(self._batch)

    def __enter__(self) -> "Progress":
        self.watcher.__enter__()
        self._show_table()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.watcher.__exit__(*exception)
        self.bar.close()

    def start(self, name: str) -> None:
        self.running[name] = 0.0
        self.bar.set_postfix_str(name)
        self._show_table()

    def epoch(self, name: str, epoch: Epoch) -> None:
        self.epochs = epoch.epochs
        self.running[name] = epoch.number / epoch.epochs
        text = f"epoch {epoch.number} of {epoch.epochs}, validation {epoch.val_accuracy:.1%}"
        self.bar.set_postfix_str(f"{name}: {text}", refresh=False)
        self._draw()
        self._show_table()

    def end(self, name: str, text: str) -> None:
        del self.running[name]
        self.ended += 1
        self._draw()
        self.say(f"{name}: {text}")
        self._show_table()

    def say(self, text: str) -> None:
        if self.area is not None:  # a notebook would break long lines within words
            text = textwrap.fill(text, 110, subsequent_indent="    ")
        tqdm.write(text, file=sys.stdout)

    def _batch(self, batches: Batches, number: int) -> bool:
        is_training = batches.seed is not None  # validation batches are not shuffled
        if is_training and len(self.running) == 1:
            self._draw(number / len(batches) / self.epochs)
        return True

    def _draw(self, more: float = 0.0) -> None:
        self.bar.update(self.ended + sum(self.running.values()) + more - self.bar.n)

    def _show_table(self) -> None:
        if self.area is not None:
            table = self.table()
            page = table.to_html(index=False, na_rep="", border=0)
            self.area.update({"text/html": page, "text/plain": table.to_string(index=False)}, raw=True)
