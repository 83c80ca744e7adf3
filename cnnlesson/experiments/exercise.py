"""The exercise: train networks at every point of a grid of learning rates, batch sizes and weight decays."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from cnnlesson import report
from cnnlesson.data import Batches, ImageSet
from cnnlesson.experiments import trial
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.plots import blank, description, plot_grid, plot_weight_decay
from cnnlesson.reference import circumstances, images_digest
from cnnlesson.results import at_point, best_point, last_epochs, unfinished, words
from cnnlesson.runtime.atomic import make_folder
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.display import count
from cnnlesson.search import GridSearch
from cnnlesson.training import evaluate


@dataclass(frozen=True)
class Setting:
    """What all trials of one network have in common, apart from the images."""

    model: str  # "alexnet" or "resnet18"
    image_size: int
    small_images: bool  # only for resnet18: see cnnlesson.models.ResNet
    dropout: float  # only for AlexNet
    augment: bool
    epochs: int


@dataclass(frozen=True)
class Images:
    """The images of the exercise. Only the chosen network is evaluated on the test images, once."""

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class Plan:
    """What to search, and where to keep it."""

    grid: Mapping[str, Sequence[float]]  # over lr, batch_size and weight_decay
    seeds: Sequence[int]  # each point is trained with each of them
    decays_at_best: Sequence[float]  # more weight decays, only for the best point of the grid
    out: Path  # the folder for journals, checkpoints and the report
    part: tuple[int, int]  # (3, 8) trains every eighth point
    ray: str | None  # the address of a Ray cluster
    gpus_per_trial: float
    retry_failed: bool
    device: str | None


def build_model(setting: Setting, num_classes: int) -> nn.Module:
    """A new network with random weights."""
    if setting.model == "alexnet":
        return AlexNet(num_classes, setting.dropout)
    return resnet18(num_classes, setting.small_images)


class Exercise:
    """The exercise for one network: the grid, then more weight decays at its best point."""

    def __init__(self, setting: Setting, images: Images, plan: Plan):
        self.setting, self.images, self.plan = setting, images, plan
        self.build_model = functools.partial(build_model, setting, len(images.train.classes))
        self.grid = self._search(plan.grid)

    def _search(self, grid: Mapping[str, Sequence[float]]) -> GridSearch:
        setting, images, plan = self.setting, self.images, self.plan
        run = functools.partial(
            trial.run,
            train_set=images.train,
            val_set=images.val,
            build_model=self.build_model,
            image_size=setting.image_size,
            epochs=setting.epochs,
            augment=setting.augment,
            device=plan.device,
        )
        settings = asdict(setting) | {"data": images.name, "images": images_digest(images.train, images.val)}
        if len(plan.seeds) > 1:
            grid = {**grid, "seed": plan.seeds}
        else:
            run = functools.partial(run, seed=plan.seeds[0])
            settings["seed"] = plan.seeds[0]
        storage = plan.out / f"{setting.model}.journal"
        return GridSearch(run, grid, storage, settings=settings, num_classes=len(images.train.classes), part=plan.part)

    def run(self) -> pd.DataFrame:
        """Run what has not ended yet, and return all epochs of all trials."""
        options = {"retry_failed": self.plan.retry_failed, "ray": self.plan.ray}
        options["gpus_per_trial"] = self.plan.gpus_per_trial
        results = self.grid.run(**options)
        is_part = self.plan.part != (1, 1)
        if is_part or unfinished(results) or not self.plan.decays_at_best or (best := self.grid.best()) is None:
            return results
        decays = list(dict.fromkeys([best["weight_decay"], *self.plan.decays_at_best]))
        at_best = self._search({name: [value] for name, value in best.items()} | {"weight_decay": decays})
        return pd.concat([results, at_best.run(**options)], ignore_index=True).drop_duplicates(ignore_index=True)

    def test(self, point: dict) -> float | None:
        """The test accuracy of the networks that were trained at `point`, the mean over the seeds.

        None if one of their checkpoints is not on this machine.
        """
        test = self.images.test
        batches = Batches(test, min(256, len(test)), self.setting.image_size, device=self.plan.device)
        accuracies = []
        for seed in self.plan.seeds:
            path = self.grid.checkpoint(point | {"seed": seed} if len(self.plan.seeds) > 1 else point)
            if not path.exists():
                return None
            model = self.build_model()
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
            model.to(batches.device, memory_format=torch.channels_last)
            accuracies.append(evaluate(model, batches).accuracy)
        return sum(accuracies) / len(accuracies)


def forecast_exercise(settings: Sequence[Setting], images: Images, plan: Plan, minutes: float | None) -> None:
    """Print how long the grids will take, and, if `minutes` are given, what fits into them for each network."""
    for setting in settings:
        search = Exercise(setting, images, plan).grid
        print(f"\n{setting.model}, {describe(find_device(plan.device))}")
        search.forecast()
        if minutes is not None:
            search.fit_into(minutes / len(settings))


def run_exercise(settings: Sequence[Setting], images: Images, plan: Plan, conclusions: str, command: str) -> None:
    """Run the exercise for each network, and write and print its results.

    The folder `plan.out` gets a journal and a folder of checkpoints for each network, from which a run that was stopped
    continues, and the report: report.html, report.md, results.csv and the figures.

    Args:
        conclusions: the student's own, in Markdown.
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
    missing = {name: unfinished(table) for name, table in results.items()}
    if plan.part != (1, 1) or any(missing.values()):
        for name, points in missing.items():
            print(f"\n{name}: {count(len(points), 'point')} missing", *map(words, points), sep="\n  ")
        print(
            "\nno report yet: it needs the whole table. When all parts have ended, run the same command without "
            "--part: it trains what is missing, then the decays at the best point, and writes the report"
        )
        return
    for name, table in results.items():
        _print(name, table, num_classes)
    chosen = _choose(exercises, results)
    about = {
        "command": command,
        "data": images.name,
        "training images": len(images.train),
        "validation images": len(images.val),
        "classes": num_classes,
        "images_sha256": images_digest(images.train, images.val),
        "seeds": plan.seeds,
    }
    for setting in settings:
        about[f"settings of {setting.model}"] = ", ".join(f"{name} {value}" for name, value in asdict(setting).items())
    about |= circumstances(device)
    page = report.write(results, plan.out, num_classes=num_classes, conclusions=conclusions, about=about, chosen=chosen)
    print(f"\nthe report is {page}: open it in a browser")


def _print(name: str, results: pd.DataFrame, num_classes: int) -> None:
    trials = last_epochs(results)
    print(f"\n{name}")
    for decay, grid in trials.groupby("weight_decay"):
        if len(grid[["lr", "batch_size"]].drop_duplicates()) > 1:  # else it is one of the decays at the best point
            print(f"validation accuracy, weight decay {decay:g} (chance level {1 / num_classes:.1%})")
            print(description(plot_grid(grid, blank())).text)
    best = best_point(results)
    if best is None:
        print("no trial was completed: try lower learning rates with --lr")
        return
    print(f"best point of {name}: lr {best['lr']:g}, batch size {best['batch_size']}")
    at_best = trials[(trials["lr"] == best["lr"]) & (trials["batch_size"] == best["batch_size"])]
    if len(at_best) > 1:
        print(description(plot_weight_decay(at_best, blank())).text)


def _choose(exercises: Mapping[str, Exercise], results: Mapping[str, pd.DataFrame]) -> report.Chosen | None:
    """Choose among all trials of all networks by validation accuracy; evaluate the chosen one on the test images."""
    candidates = []
    for name, table in results.items():
        if (point := best_point(table)) is not None:
            accuracy = at_point(last_epochs(table), point)["val_accuracy"].mean()  # over the seeds
            candidates.append((accuracy, name, point))
    if not candidates:
        return None
    val_accuracy, name, point = max(candidates, key=lambda candidate: candidate[0])
    test_accuracy = exercises[name].test(point)
    if test_accuracy is None:
        print(f"\nchosen: {name}; its checkpoint is not on this machine, so there is no test accuracy")
        return None
    print(f"\nchosen: {name}, validation accuracy {val_accuracy:.1%}, test accuracy {test_accuracy:.1%}")
    return report.Chosen(name, point, val_accuracy, test_accuracy, len(exercises[name].images.test))
