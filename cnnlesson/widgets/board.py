"""The live board: how a training goes, while it goes."""

import html
import time
from collections.abc import Iterable, Iterator, Sequence

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.doctor import diagnose
from cnnlesson.plots import as_html, blank, history_text, plot_history
from cnnlesson.runtime.display import duration, output_area
from cnnlesson.training import Epoch
from cnnlesson.trial_run import one_line

MOST_COST = 0.01  # of the time that has passed: as much the board may have taken, its last picture apart
SECONDS = 0.5  # between two changes of its words, at least


def live_board(epochs: Iterable[Epoch], num_classes: int | None = None) -> Iterator[Epoch]:
    """Hand on the epochs of a training one by one, and show meanwhile how it goes.

        for epoch in live_board(train(model, train_batches, val_batches, optimizer, epochs=5)):
            history.append(epoch)

    In a notebook that is a picture of losses and accuracies, and in words the learning rate, images a second, the time
    left, and what the training doctor says. To draw takes as long as some steps of training: where epochs are short,
    not each gets a picture, but the last one does. Elsewhere a line is printed for each epoch.

    Args:
        epochs: what `train` gives.
        num_classes: lets the training doctor know what guessing is.
    """
    place = output_area()
    shown = _Lines() if place is None else _Board(picture=output_area(), words=place)
    history = []
    with watch_batches(shown.batch):
        try:
            for epoch in epochs:
                history.append(epoch)
                shown.epoch(history, diagnose(history, num_classes))
                yield epoch
        except BaseException as error:  # also the stop button, and a caller who wants no more epochs
            shown.end(history, "stopped" if isinstance(error, GeneratorExit) else f"stopped: {one_line(error)}")
            raise
        shown.end(history, "ended")


class _Lines:
    """Prints a line an epoch, where nothing can be shown that changes."""

    def batch(self, batches: Batches, number: int) -> bool:
        return True

    def epoch(self, history: Sequence[Epoch], advice: Sequence[str]) -> None:
        print(_in_words(history[-1]), *advice, sep="\n", flush=True)

    def end(self, history: Sequence[Epoch], how: str) -> None:
        print(f"the training has {how}" if history else f"{how}, before its first epoch was over", flush=True)


class _Board:
    """A picture and words that change, at two places of a notebook's output."""

    def __init__(self, picture, words):
        self.picture, self.words = picture, words
        self.start = self.said = self.pass_start = time.perf_counter()
        self.cost = 0.0  # seconds that the board has taken
        self.cost_of_picture = 0.2  # as long as none was drawn
        self.last = None  # the epoch that ended last
        self.lines = []  # about it
        self.drawn = 0  # the number of epochs in the picture

    def batch(self, batches: Batches, number: int) -> bool:
        """Say between two batches of training images how far their pass is."""
        if batches.seed is None:  # validation images, which are not shuffled
            return True
        now = time.perf_counter()
        if number == 0:
            self.pass_start = now
        elif now - self.said > SECONDS and self._can_afford(0, now):
            seconds = now - self.pass_start
            speed = number * batches.batch_size / seconds
            line = f"now: {number} of {len(batches)} batches, {speed:,.0f} images a second"
            if self.last:
                left = (self.last.epochs - self.last.number) * self.last.seconds - seconds
                line += f", {duration(max(0, left))} left"
            self._say([*self.lines, line])
        return True

    def epoch(self, history: Sequence[Epoch], advice: Sequence[str]) -> None:
        self.last, self.lines = history[-1], [_in_words(history[-1]), *advice]
        self._say(self.lines)
        if self._can_afford(self.cost_of_picture, time.perf_counter()):
            self._draw(history)

    def end(self, history: Sequence[Epoch], how: str) -> None:
        if self.drawn < len(history):
            self._draw(history)
        self._say([*self.lines, f"the training has {how}"])

    def _can_afford(self, seconds: float, now: float) -> bool:
        return self.cost + seconds <= MOST_COST * (now - self.start)

    def _say(self, lines: Sequence[str]) -> None:
        start = time.perf_counter()
        text = "\n".join(lines)
        page = f'<pre role="status" style="white-space: pre-wrap; margin: 0; padding: 0">{html.escape(text)}</pre>'
        self.words.update({"text/html": page, "text/plain": text}, raw=True)
        self.said = time.perf_counter()
        self.cost += self.said - start

    def _draw(self, history: Sequence[Epoch]) -> None:
        start = time.perf_counter()
        axes = plot_history(history, blank(1, 2, (9.6, 3.2)))
        self.picture.update({"text/html": as_html(axes), "text/plain": history_text(history)}, raw=True)
        self.drawn = len(history)
        self.cost_of_picture = time.perf_counter() - start
        self.cost += self.cost_of_picture


def _in_words(epoch: Epoch) -> str:
    left = (epoch.epochs - epoch.number) * epoch.seconds
    return (
        f"epoch {epoch.number} of {epoch.epochs}: training loss {epoch.train_loss:.3f}, validation loss "
        f"{epoch.val_loss:.3f}, accuracy {epoch.val_accuracy:.1%}; learning rate {epoch.learning_rate:g}, "
        f"{epoch.images_per_second:,.0f} images a second" + (f", {duration(left)} left" if left else "")
    )
