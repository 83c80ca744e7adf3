"""The lesson's exercise: train a network at every point of a grid of learning rates, batch sizes and weight decays."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from cnnlesson.data import Batches, ImageSet
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.plots import grid_text, plot_grid, plot_weight_decay, save_figure, weight_decay_text
from cnnlesson.training import Epoch, train, training_dtype

MOMENTUM = 0.9  # of stochastic gradient descent, as in both papers


@dataclass(frozen=True)
class Setting:
    """What all trials of one run have in common, apart from the images themselves."""

    model: str  # "alexnet" or "resnet18"
    data: str  # names the images in the results
    image_size: int
    small_images: bool  # resnet18 alone: see cnnlesson.models.ResNet
    dropout: float  # AlexNet alone
    augment: bool
    epochs: int
    seed: int


@dataclass(frozen=True)
class Point:
    """One point of the grid."""

    lr: float
    batch_size: int
    weight_decay: float

    def __str__(self) -> str:
        return f"lr {self.lr:g}, batch size {self.batch_size}, weight decay {self.weight_decay:g}"


def run_trial(
    setting: Setting, point: Point, train_set: ImageSet, val_batches: Batches, progress: tqdm
) -> Iterator[Epoch]:
    """Train a new network at one point of the grid, and yield its epochs; `progress` counts training images."""
    torch.manual_seed(setting.seed)
    train_batches = Batches(
        train_set,
        batch_size=point.batch_size,
        image_size=setting.image_size,
        seed=setting.seed,
        augment=setting.augment,
        device=val_batches.device,
    )
    model = build_model(setting, len(train_set.classes)).to(train_batches.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=point.lr, momentum=MOMENTUM, weight_decay=point.weight_decay, fused=True
    )
    yield from train(model, _Counted(train_batches, progress), val_batches, optimizer, setting.epochs)


def build_model(setting: Setting, num_classes: int) -> nn.Module:
    if setting.model == "alexnet":
        return AlexNet(num_classes, setting.dropout)
    return resnet18(num_classes, setting.small_images)


class _Counted:
    """Batches that move a progress bar on as they are used."""

    def __init__(self, batches: Batches, progress: tqdm):
        self.batches = batches
        self.progress = progress

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self.batches:
            yield images, labels
            self.progress.update(len(labels))


COLUMNS = [
    *Setting.__dataclass_fields__,
    *Point.__dataclass_fields__,
    *("epoch" if name == "number" else name for name in Epoch.__dataclass_fields__),
]


class ResultsFile:
    """results.csv: a row a trial and epoch, on disk as soon as the epoch ends.

    Each row names its setting, so runs with other settings can share the file. A trial that was cut off is dropped
    when the file is opened again, and runs again from its start.
    """

    def __init__(self, path: Path, setting: Setting):
        self.path = path
        self.setting = setting
        if path.exists():
            rows = self._read()
            trial = [*Setting.__dataclass_fields__, *Point.__dataclass_fields__]
            is_last = rows.groupby(trial)["epoch"].transform("max") == rows["epochs"]
            diverged = rows.groupby(trial)["diverged"].transform("any")
            unfinished = path.with_suffix(".unfinished")
            rows[is_last | diverged].to_csv(unfinished, index=False)
            unfinished.replace(path)

    def _read(self) -> pd.DataFrame:
        text = self.path.read_text()
        whole_lines = text[: text.rfind("\n") + 1]  # a run that died may have cut the last one
        if not whole_lines:
            return pd.DataFrame(columns=COLUMNS)
        rows = pd.read_csv(StringIO(whole_lines), float_precision="round_trip")
        if list(rows.columns) != COLUMNS:
            raise ValueError(f"{self.path} is not a results file of this exercise: name another folder with --out")
        return rows

    def add(self, point: Point, epoch: Epoch) -> None:
        row = asdict(self.setting) | asdict(point) | asdict(epoch)
        row["epoch"] = row.pop("number")
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def trials(self, points: Sequence[Point]) -> pd.DataFrame:
        """The last epoch of each trial with this setting at one of `points`: a row a trial, with `COLUMNS`."""
        if not self.path.exists():
            return pd.DataFrame(columns=COLUMNS)
        rows = self._read()
        for name, value in asdict(self.setting).items():
            rows = rows[rows[name] == value]
        at_points = [point in points for point in map(Point, rows["lr"], rows["batch_size"], rows["weight_decay"])]
        return rows[at_points].drop_duplicates(list(Point.__dataclass_fields__), keep="last")


def run_exercise(
    setting: Setting,
    train_set: ImageSet,
    val_set: ImageSet,
    grid: Sequence[Point],
    decays_at_best: Sequence[float],
    out: Path,
    device: str | None = None,
) -> None:
    """Train at every point of `grid`, then at the best of them with each of `decays_at_best`; write and print it all.

    The folder `out` gets results.csv, a heat map for each weight decay of the grid, and a figure of the effect of
    weight decay where the best point was trained with several. Trials that results.csv already holds for the same
    setting are not run again.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {out} cannot be made ({error.strerror}): name another one") from error
    results = ResultsFile(out / "results.csv", setting)
    val_batches = Batches(val_set, min(256, len(val_set)), setting.image_size, device=device)
    print(
        f"{setting.model} on {setting.data}: {len(train_set):,} training and {len(val_set):,} validation images of "
        f"{len(val_set.classes)} classes, {describe(val_batches.device)}"
    )
    _run_points(results, grid, train_set, val_batches)
    best = best_point(results.trials(grid))
    if best is not None:
        at_best = [Point(best.lr, best.batch_size, decay) for decay in decays_at_best]
        _run_points(results, at_best, train_set, val_batches)
        grid = [*grid, *at_best]
    _report(results.trials(grid), best, setting, len(val_set.classes), out)


def _run_points(results: ResultsFile, points: Sequence[Point], train_set: ImageSet, val_batches: Batches) -> None:
    todo = [point for point in points if results.trials([point]).empty]
    if len(todo) < len(points):
        print(f"{len(points) - len(todo)} of {len(points)} trials are in {results.path} already and are not run again")
    setting = results.setting
    with tqdm(total=len(todo) * setting.epochs * len(train_set), unit=" images", disable=not todo) as progress:
        for number, point in enumerate(todo, start=1):
            progress.set_description(f"trial {number} of {len(todo)}")
            progress.set_postfix_str(str(point))
            for epoch in run_trial(setting, point, train_set, val_batches, progress):
                results.add(point, epoch)
                progress.set_postfix_str(f"{point}: {_in_words(epoch)}")
            progress.update((setting.epochs - epoch.number) * len(train_set))  # what a diverged trial leaves out
            progress.write(f"{point}: {_in_words(epoch)}")


def _in_words(epoch: Epoch) -> str:
    if epoch.diverged:
        return f"diverged in epoch {epoch.number}"
    return f"epoch {epoch.number}, loss {epoch.train_loss:.3f}, validation {epoch.val_accuracy:.1%}"


def best_point(trials: pd.DataFrame) -> Point | None:
    """The point whose trial ended with the highest validation accuracy, or None where all diverged."""
    trials = trials[~trials["diverged"]]
    if trials.empty:
        return None
    best = trials.loc[trials["val_accuracy"].idxmax()]
    return Point(best["lr"], best["batch_size"], best["weight_decay"])


def _report(trials: pd.DataFrame, best: Point | None, setting: Setting, num_classes: int, out: Path) -> None:
    epochs = "1 epoch" if setting.epochs == 1 else f"{setting.epochs} epochs"
    title = f"{setting.model} on {setting.data}, {epochs}"
    guessing = f"guessing gives {1 / num_classes:.1%}"
    for decay, grid in trials.groupby("weight_decay"):
        if len(grid) == 1:
            continue  # one of the decays at the best point
        print(f"\nvalidation accuracy of {title}, weight decay {decay:g} ({guessing})")
        print(grid_text(grid))
        figure, ax = _figure()
        plot_grid(grid, ax).set_title(f"{title}\nweight decay {decay:g}; {guessing}", fontsize=10)
        save_figure(figure, out / f"{setting.model}-grid-decay-{decay:g}.png")
    if best is None:
        print("\nevery trial diverged: try lower learning rates with --lr")
        return
    print(f"\nbest point: {best}")
    at_best = trials[(trials["lr"] == best.lr) & (trials["batch_size"] == best.batch_size)]
    if len(at_best) > 1:
        print(f"effect of weight decay at lr {best.lr:g}, batch size {best.batch_size}")
        print(weight_decay_text(at_best))
        figure, ax = _figure()
        subtitle = f"lr {best.lr:g}, batch size {best.batch_size}; {guessing}"
        plot_weight_decay(at_best, ax).set_title(f"{title}\n{subtitle}", fontsize=10)
        save_figure(figure, out / f"{setting.model}-weight-decay.png")
    print(f"\nresults and figures are in {out}/")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    return figure, figure.subplots()


def describe(device: torch.device) -> str:
    """The device in words, with the type that it computes in."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()}"
    if device.type == "cpu":
        name = f"a processor with {torch.get_num_threads()} threads and no GPU"
    return f"on {name}, in {str(training_dtype(device)).removeprefix('torch.')}"
