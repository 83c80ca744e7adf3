"""The live board: the progress of a training while it runs."""

import html
import time
from collections.abc import Iterable, Iterator, Sequence

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.doctor import diagnose
from cnnlesson.plots import blank, plot_history
from cnnlesson.plots.figures import bundle
from cnnlesson.runtime.display import duration, in_notebook, one_line, output_area
from cnnlesson.training import Epoch

MAX_COST = 0.01  # the share of the time that pictures may use, without the last one
SECONDS = 0.5  # between two updates of the text during an epoch, at least


def live_board(epochs: Iterable[Epoch], num_classes: int | None = None) -> Iterator[Epoch]:
    """Yield the epochs of a training one by one, and show its progress meanwhile.

        for epoch in live_board(train(model, train_batches, val_batches, optimizer, epochs=5)):
            history.append(epoch)

    In a notebook, the board is a picture of losses and accuracies, and a text with the learning rate, the images per
    second, the time left and the remarks of the training doctor. Drawing takes as long as several training steps: if
    epochs are short, not each gets a picture, but the last one does. Elsewhere, the board prints a line per epoch.

    Args:
        epochs: an iterator of epochs, from `train`.
        num_classes: tells the training doctor what chance level is.
    """
    shown = _Board() if in_notebook() else _Lines()
    history = []
    with watch_batches(shown.batch):
        try:
            for epoch in epochs:
                history.append(epoch)
                shown.epoch(history, diagnose(history, num_classes))
                yield epoch
        except BaseException as error:  # also the stop button, and a caller who needs no more epochs
            shown.end(history, "stopped" if isinstance(error, GeneratorExit) else f"stopped: {one_line(error)}")
            raise
        shown.end(history, "ended")


class _Lines:
    """Prints a line per epoch, for outputs that cannot be updated."""

    def batch(self, batches: Batches, number: int) -> bool:
        return True

    def epoch(self, history: Sequence[Epoch], remarks: Sequence[str]) -> None:
        print(_epoch_text(history[-1]), *remarks, sep="\n", flush=True)

    def end(self, history: Sequence[Epoch], how: str) -> None:
        print(f"the training has {how}" if history else f"{how}, before the first epoch was complete", flush=True)


class _Board:
    """A picture and a text in two output areas of a notebook, which are updated."""

    def __init__(self):
        self.text, self.picture = output_area(), output_area()
        self.drawn = self.written = self.pass_start = time.perf_counter()
        self.cost_of_picture = 0.2  # seconds, a guess until one is drawn
        self.num_drawn = 0  # epochs in the picture
        self.last = None  # the last epoch that is complete
        self.lines = []  # about it

    def batch(self, batches: Batches, number: int) -> bool:
        """Report the progress of an epoch between two batches of training images."""
        if batches.seed is None:  # validation images, which are not shuffled
            return True
        now = time.perf_counter()
        if number == 0:
            self.pass_start = now
        elif now - self.written > SECONDS:
            seconds = now - self.pass_start
            speed = number * batches.batch_size / seconds
            line = f"now: {number} of {len(batches)} batches, {speed:,.0f} images per second"
            if self.last:
                left = (self.last.epochs - self.last.number) * self.last.seconds - seconds
                line += f", {duration(max(0, left))} left"
            self._write([*self.lines, line])
        return True

    def epoch(self, history: Sequence[Epoch], remarks: Sequence[str]) -> None:
        self.last, self.lines = history[-1], [_epoch_text(history[-1]), *remarks]
        self._write(self.lines)
        if self.cost_of_picture <= MAX_COST * (time.perf_counter() - self.drawn):
            self._draw(history)

    def end(self, history: Sequence[Epoch], how: str) -> None:
        if self.num_drawn < len(history):
            self._draw(history)
        self._write([*self.lines, f"the training has {how}"])

    def _write(self, lines: Sequence[str]) -> None:
        text = "\n".join(lines)
        page = f'<pre role="status" style="white-space: pre-wrap; margin: 0; padding: 0">{html.escape(text)}</pre>'
        self.text.update({"text/html": page, "text/plain": text}, raw=True)
        self.written = time.perf_counter()

    def _draw(self, history: Sequence[Epoch]) -> None:
        start = time.perf_counter()
        self.picture.update(bundle(plot_history(history, blank(1, 2, (9.6, 3.2)))), raw=True)
        self.num_drawn, self.drawn = len(history), time.perf_counter()
        self.cost_of_picture = self.drawn - start


def _epoch_text(epoch: Epoch) -> str:
    left = (epoch.epochs - epoch.number) * epoch.seconds
    return (
        f"epoch {epoch.number} of {epoch.epochs}: training loss {epoch.train_loss:.3f}, validation loss "
        f"{epoch.val_loss:.3f}, accuracy {epoch.val_accuracy:.1%}; learning rate {epoch.learning_rate:g}, "
        f"{epoch.images_per_second:,.0f} images per second" + (f", {duration(left)} left" if left else "")
    )
