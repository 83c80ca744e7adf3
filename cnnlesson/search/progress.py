"""What a search shows while it runs: a bar in a terminal or a notebook, and in a notebook the table of its points."""

import re
import sys
import textwrap
from collections.abc import Callable

from tqdm.auto import tqdm

from cnnlesson.data.batches import Batches
from cnnlesson.runtime.display import output_area


class Progress:
    """Shows how far a search is.

    Args:
        num_points: of the grid.
        num_ended: points that are not run again.
        table: returns the state of all points, for a notebook.
    """

    def __init__(self, num_points: int, num_ended: int, table: Callable):
        self.table, self.num_ended = table, num_ended
        self.area = output_area()
        self.done = {}  # by name, the share of a trial that is done
        self.text = ""  # what the newest trial has done
        self.told = set()  # remarks of the training doctor
        # Outside a notebook, the bar is only for a terminal (None): in a file it would be a line per update.
        off = num_ended == num_points or (None if self.area is None else False)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=num_points, initial=num_ended, desc="grid", bar_format=bar, disable=off, miniters=0)

    def show(self, name: str, share: float, text: str = "") -> None:
        """Show that a trial has started, with a share of 0, or has finished an epoch."""
        self.done[name], self.text = share, f"{name}{text}"
        self._draw(self.text)
        if self.area is not None:
            table = self.table()
            page = table.to_html(index=False, na_rep="", border=0)
            self.area.update({"text/html": page, "text/plain": table.to_string(index=False)}, raw=True)

    def batch(self, batches: Batches, number: int) -> bool:
        """For `watch_batches`: show the steps of an epoch."""
        if batches.seed is not None:  # validation batches are not shuffled
            self._draw(f"{self.text}, step {number} of {len(batches)}")
        return True

    def _draw(self, text: str) -> None:
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(self.num_ended + sum(self.done.values()) - self.bar.n)

    def say(self, text: str) -> None:
        if self.area is not None:  # a notebook would break long lines within words
            text = textwrap.fill(text, 110, subsequent_indent="    ")
        tqdm.write(text, file=sys.stdout)

    def remark(self, name: str, epoch: int, text: str) -> None:
        """Print a remark of the training doctor once per trial, though its numbers change from epoch to epoch."""
        symptom = name, re.sub(r"[\d.e%-]+", "", text)
        if symptom not in self.told:
            self.told.add(symptom)
            self.say(f"  {name}, epoch {epoch}: {text}")
