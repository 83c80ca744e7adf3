"""The lesson's exercise: train networks at every point of a grid of learning rates, batch sizes and weight decays."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from cnnlesson import report
from cnnlesson.data import Batches, ImageSet
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.plots import grid_text, weight_decay_text
from cnnlesson.reference import circumstances, images_digest
from cnnlesson.results import at_point, best_point, last_epochs
from cnnlesson.runtime.atomic import make_folder
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.search import GridSearch
from cnnlesson.training import Epoch, evaluate, train

MOMENTUM = 0.9  # of stochastic gradient descent, as in both papers


@dataclass(frozen=True)
class Setting:
    """What all trials of one network have in common, apart from the images themselves."""

    model: str  # "alexnet" or "resnet18"
    image_size: int
    small_images: bool  # resnet18 alone: see cnnlesson.models.ResNet
    dropout: float  # AlexNet alone
    augment: bool
    epochs: int


@dataclass(frozen=True)
class Images:
    """The images of the exercise; the test images are looked at once, by the chosen network."""

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet


def run_trial(
    setting: Setting,
    images: Images,
    device: str | None,
    lr: float,
    batch_size: int,
    weight_decay: float,
    seed: int,
    checkpoint: str | os.PathLike,
) -> Iterator[Epoch]:
    """Train a new network at one point of the grid, and yield its epochs."""
    torch.manual_seed(seed)
    train_batches = Batches(
        images.train, batch_size, setting.image_size, seed=seed, augment=setting.augment, device=device
    )
    val_batches = Batches(images.val, min(256, len(images.val)), setting.image_size, device=device)
    model = build_model(setting, len(images.train.classes)).to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, setting.epochs, checkpoint=checkpoint)


def build_model(setting: Setting, num_classes: int) -> nn.Module:
    if setting.model == "alexnet":
        return AlexNet(num_classes, setting.dropout)
    return resnet18(num_classes, setting.small_images)


@dataclass(frozen=True)
class Plan:
    """What to search, and where to keep it."""

    grid: Mapping[str, Sequence[float]]  # over lr, batch_size and weight_decay
    seeds: Sequence[int]  # each point is trained with each of them
    decays_at_best: Sequence[float]  # weight decays for the best point of the grid alone
    out: Path  # the folder for the report, and for the journals where `storage` is None
    storage: str | None  # of a database
    name: str | None  # of the searches in a database
    workers: int
    prune: bool
    retry_failed: bool
    device: str | None


class Exercise:
    """The exercise for one network: the grid, then more weight decays at its best point."""

    def __init__(self, setting: Setting, images: Images, plan: Plan):
        self.setting = setting
        self.images = images
        self.plan = plan
        self.grid = self._search(plan.grid)

    def _search(self, grid: Mapping[str, Sequence[float]]) -> GridSearch:
        plan, images = self.plan, self.images
        in_database = plan.storage is not None
        run = functools.partial(run_trial, self.setting, images, plan.device)
        settings = asdict(self.setting) | {"data": images.name, "images": images_digest(images.train, images.val)}
        if len(plan.seeds) > 1:
            grid = {**grid, "seed": plan.seeds}
        else:
            run = functools.partial(run, seed=plan.seeds[0])
            settings["seed"] = plan.seeds[0]
        return GridSearch(
            run,
            grid,
            plan.storage or plan.out / f"{self.setting.model}.journal",
            name=f"{plan.name}-{self.setting.model}" if in_database else None,
            settings=settings,
            num_classes=len(images.train.classes),
            checkpoints=plan.out / f"{self.setting.model}.checkpoints" if in_database else None,
        )

    def run(self) -> pd.DataFrame:
        """Run what has not ended yet, and return all epochs of all trials."""
        how = {"workers": self.plan.workers, "retry_failed": self.plan.retry_failed}
        results = self.grid.run(prune=self.plan.prune, **how)
        best = self.grid.best()
        if best is None or not self.plan.decays_at_best:
            return results
        decays = list(dict.fromkeys([best["weight_decay"], *self.plan.decays_at_best]))
        grid = {name: [value] for name, value in best.items()} | {"weight_decay": decays}
        at_best = self._search(grid)
        return pd.concat([results, at_best.run(**how)], ignore_index=True).drop_duplicates(ignore_index=True)

    def test(self, point: dict) -> float | None:
        """The test accuracy of the network that was trained at `point`, the mean over the seeds.

        None where a checkpoint is not on this machine.
        """
        test = self.images.test
        batches = Batches(test, min(256, len(test)), self.setting.image_size, device=self.plan.device)
        accuracies = []
        for seed in self.plan.seeds:
            path = self.grid.checkpoint(point | {"seed": seed} if len(self.plan.seeds) > 1 else point)
            if not path.exists():
                return None
            model = build_model(self.setting, len(self.images.train.classes))
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
            model.to(batches.device, memory_format=torch.channels_last)
            accuracies.append(evaluate(model, batches).accuracy)
        return sum(accuracies) / len(accuracies)


def forecast_exercise(settings: Sequence[Setting], images: Images, plan: Plan, minutes: float | None) -> None:
    """Print how long the grids will take, and, where `minutes` are given, what fits into them for each network."""
    for setting in settings:
        search = Exercise(setting, images, plan).grid
        print(f"\n{setting.model}, {describe(find_device(plan.device))}")
        search.forecast(plan.workers)
        if minutes is not None:
            search.fit_into(minutes / len(settings), plan.workers)


def run_exercise(settings: Sequence[Setting], images: Images, plan: Plan, conclusions: str, command: str) -> None:
    """Run the exercise for each network, and write and print its results.

    The folder `plan.out` gets a journal and a folder of checkpoints for each network, with which a run that was stopped
    goes on, and the report: report.html, report.md, results.csv and the figures.

    Args:
        conclusions: the student's own words, in Markdown.
        command: what was typed, for the report.
    """
    make_folder(plan.out)
    device = find_device(plan.device)
    num_classes = len(images.train.classes)
    print(
        f"{images.name}: {len(images.train):,} training, {len(images.val):,} validation and {len(images.test):,} test "
        f"images of {num_classes} classes, on {describe(device)}"
    )
    exercises = {setting.model: Exercise(setting, images, plan) for setting in settings}
    results = {}
    for name, exercise in exercises.items():
        print(f"\n{name}")
        results[name] = exercise.run()
        _print(name, results[name], num_classes)
    chosen = _choose(exercises, results)
    made = {"command": command, "data": images.name, "training images": len(images.train)}
    made |= {
        "validation images": len(images.val),
        "classes": num_classes,
        "images_sha256": images_digest(images.train, images.val),
    }
    for setting in settings:
        made[f"settings of {setting.model}"] = ", ".join(f"{name} {value}" for name, value in asdict(setting).items())
    page = report.write(
        results,
        plan.out,
        num_classes=num_classes,
        conclusions=conclusions,
        about=made | {"seeds": plan.seeds, "workers": plan.workers} | circumstances(device),
        chosen=chosen,
    )
    print(f"\nthe report is {page}: open it in a browser")


def _print(name: str, results: pd.DataFrame, num_classes: int) -> None:
    trials = last_epochs(results)
    for decay, grid in trials.groupby("weight_decay"):
        if len(grid[["lr", "batch_size"]].drop_duplicates()) > 1:  # else it is one of the decays at the best point
            print(f"\nvalidation accuracy, weight decay {decay:g} (guessing gives {1 / num_classes:.1%})")
            print(grid_text(grid))
    best = best_point(results)
    if best is None:
        print("\nno trial was completed: try lower learning rates with --lr")
        return
    print(f"\nbest point of {name}: lr {best['lr']:g}, batch size {best['batch_size']}")
    at_best = trials[(trials["lr"] == best["lr"]) & (trials["batch_size"] == best["batch_size"])]
    if len(at_best) > 1:
        print(weight_decay_text(at_best.sort_values("weight_decay")))


def _choose(exercises: Mapping[str, Exercise], results: Mapping[str, pd.DataFrame]) -> report.Chosen | None:
    """Choose among all trials of all networks by validation accuracy, and look at the test images once."""
    candidates = []
    for name, table in results.items():
        point = best_point(table)
        if point is not None:
            accuracy = at_point(last_epochs(table), point)["val_accuracy"].mean()  # over the seeds
            candidates.append((accuracy, name, point))
    if not candidates:
        return None
    val_accuracy, name, point = max(candidates, key=lambda candidate: candidate[0])
    test_accuracy = exercises[name].test(point)
    if test_accuracy is None:
        print(f"\nchosen: {name}; its checkpoint is not on this machine, so the test images were not looked at")
        return None
    test = exercises[name].images.test
    print(f"\nchosen: {name}, validation accuracy {val_accuracy:.1%}, test accuracy {test_accuracy:.1%}")
    return report.Chosen(name, point, val_accuracy, test_accuracy, len(test))
