"""The exercise: train networks at every point of a grid of learning rates, batch sizes and weight decays."""

import functools
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from cnnlesson import report
from cnnlesson.data import Batches, ImageSet, named_images, split, take
from cnnlesson.experiments import trial
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.noise import verdict
from cnnlesson.plots import blank, description, plot_grid, plot_weight_decay
from cnnlesson.points import words
from cnnlesson.reference import circumstances, images_digest
from cnnlesson.results import at_point, best_point, last_epochs, unfinished
from cnnlesson.runtime.atomic import make_folder
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.display import count
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.search import GridSearch
from cnnlesson.training import evaluate


class Images(NamedTuple):
    """The images of the exercise. Only the chosen network is evaluated on the test images, once."""

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet


def run_exercise(options: Namespace) -> int:
    """Run the exercise for each network, write and print its results; or only print a forecast.

    Returns the exit code: 1 if every trial failed.

    The folder --out gets a journal and a folder of checkpoints for each network, from which a run that was stopped
    continues, and the report: report.html, report.md, results.csv and the figures.

    Args:
        options: those of `python -m cnnlesson exercise`, and `typed`, the command line.
    """
    conclusions = "Not written yet." if options.conclusions is None else options.conclusions.read_text(encoding="utf-8")
    images = load_images(options)
    exercises = {model: Exercise(model, images, options) for model in options.model}
    device = find_device(options.device)
    if options.forecast or options.fit is not None:
        for model, exercise in exercises.items():
            print(f"\n{model}, {describe(device)}")
            exercise.grid.forecast()
            if options.fit is not None:
                exercise.grid.fit_into(options.fit / len(exercises))
        return 0
    make_folder(options.out)
    num_classes = len(images.train.classes)
    print(
        f"{images.name}: {len(images.train):,} training, {len(images.val):,} validation and {len(images.test):,} test "
        f"images of {num_classes} classes, on {describe(device)}"
    )
    results = {}
    for model, exercise in exercises.items():
        print(f"\n{model}")
        results[model] = exercise.run()
    missing = {model: unfinished(table) for model, table in results.items()}
    if options.part != (1, 1) or any(missing.values()):
        for model, points in missing.items():
            print(f"\n{model}: {count(len(points), 'point')} missing", *map(words, points), sep="\n  ")
        print(
            "\nno report yet: it needs the whole table. When all parts have ended, run the same command without "
            "--part: it trains what is missing, then the decays at the best point, and writes the report"
        )
        return 0
    if all((table["state"] == "failed").all() for table in results.values()):
        reasons = {reason: None for table in results.values() for reason in table["reason"]}
        print("\nno report: every trial failed", *reasons, sep="\n  ", file=sys.stderr)
        return 1
    for model, table in results.items():
        _print(model, table, num_classes)
    about = {
        "command": options.typed,
        "data": images.name,
        "training images": len(images.train),
        "validation images": len(images.val),
        "classes": num_classes,
        "images_sha256": images_digest(images.train, images.val),
        "seeds": options.seed,
    }
    for model, exercise in exercises.items():
        about[f"settings of {model}"] = ", ".join(f"{name} {value}" for name, value in exercise.settings.items())
    page = report.write(
        results,
        options.out,
        num_classes=num_classes,
        conclusions=conclusions,
        about=about | circumstances(device),
        chosen=_choose(exercises, results),
    )
    print(f"\nthe report is {page}: open it in a browser")
    return 0


def load_images(options: Namespace) -> Images:
    """The images that --data and --images name, split by --val-fraction with the first seed."""
    seed = options.seed[0]
    data = named_images(options.data, options.root, seed, size=options.image_size or 64)
    images = data.train if options.images is None else take(data.train, options.images, seed=seed)
    train_set, val_set = split(images, (1 - options.val_fraction, options.val_fraction), seed=seed)
    for batch_size in options.batch_size:
        if batch_size > len(train_set):
            raise ValueError(f"--batch-size {batch_size} is larger than the {len(train_set)} training images")
    reuse_freed_memory()
    return Images(Path(options.data).stem, train_set, val_set, data.test)


def build_model(model: str, num_classes: int, dropout: float, small_images: bool) -> nn.Module:
    """A new network with random weights."""
    return AlexNet(num_classes, dropout) if model == "alexnet" else resnet18(num_classes, small_images)


class Exercise:
    """The exercise for one network: the grid, then more weight decays at its best point."""

    def __init__(self, model: str, images: Images, options: Namespace):
        self.model, self.images, self.options = model, images, options
        self.settings = {
            "model": model,
            "image_size": options.image_size or (227 if model == "alexnet" else images.train.images.shape[-1]),
            "small_images": options.small_images,  # only for resnet18
            "dropout": options.dropout,  # only for AlexNet
            "augment": options.augment,
            "epochs": options.epochs,
        }
        self.build_model = functools.partial(
            build_model, model, len(images.train.classes), options.dropout, options.small_images
        )
        self.grid = self._search(options.lr, options.batch_size, options.weight_decay)

    def _search(self, lr: Sequence[float], batch_size: Sequence[int], weight_decay: Sequence[float]) -> GridSearch:
        images, options = self.images, self.options
        run = functools.partial(
            trial.run,
            train_set=images.train,
            val_set=images.val,
            build_model=self.build_model,
            image_size=self.settings["image_size"],
            epochs=options.epochs,
            augment=options.augment,
            device=options.device,
        )
        grid = {"lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
        settings = self.settings | {"data": images.name, "images": images_digest(images.train, images.val)}
        if len(options.seed) > 1:
            grid["seed"] = options.seed
        else:
            run = functools.partial(run, seed=options.seed[0])
            settings["seed"] = options.seed[0]
        storage, num_classes = options.out / f"{self.model}.journal", len(images.train.classes)
        return GridSearch(run, grid, storage, settings=settings, num_classes=num_classes, part=options.part)

    def run(self) -> pd.DataFrame:
        """Run what has not ended yet, and return all epochs of all trials."""
        options = self.options
        how = {"retry_failed": options.retry_failed, "ray": options.ray, "gpus_per_trial": options.gpus_per_trial}
        results = self.grid.run(**how)
        is_part = options.part != (1, 1)
        if is_part or unfinished(results) or not options.decay_at_best or (best := best_point(results)) is None:
            return results
        decays = list(dict.fromkeys([best["weight_decay"], *options.decay_at_best]))
        at_best = self._search([best["lr"]], [best["batch_size"]], decays).run(**how)
        return pd.concat([results, at_best], ignore_index=True).drop_duplicates(ignore_index=True)

    def test(self, point: dict) -> float | None:
        """The test accuracy of the networks that were trained at `point`, the mean over the seeds.

        None if one of their checkpoints is not on this machine.
        """
        test_set, seeds = self.images.test, self.options.seed
        batches = Batches(test_set, min(256, len(test_set)), self.settings["image_size"], device=self.options.device)
        accuracies = []
        for seed in seeds:
            path = self.grid.checkpoint(point | {"seed": seed} if len(seeds) > 1 else point)
            if not path.exists():
                return None
            model = trial.trained_model(self.build_model, path)
            model.to(batches.device, memory_format=torch.channels_last)
            accuracies.append(evaluate(model, batches).accuracy)
        return sum(accuracies) / len(accuracies)


def _print(model: str, results: pd.DataFrame, num_classes: int) -> None:
    trials = last_epochs(results)
    print(f"\n{model}")
    for decay, grid in trials.groupby("weight_decay"):
        if len(grid[["lr", "batch_size"]].drop_duplicates()) > 1:  # else it is one of the decays at the best point
            print(f"validation accuracy, weight decay {decay:g} (chance level {1 / num_classes:.1%})")
            print(description(plot_grid(grid, blank())).text)
            print(verdict(grid))
    best = best_point(results)
    if best is None:
        print("no trial was completed: try lower learning rates with --lr")
        return
    print(f"best point of {model}: lr {best['lr']:g}, batch size {best['batch_size']}")
    at_best = at_point(trials, {"lr": best["lr"], "batch_size": best["batch_size"]})
    if len(at_best) > 1:
        print(description(plot_weight_decay(at_best, blank())).text)
        print(verdict(at_best))


def _choose(exercises: Mapping[str, Exercise], results: Mapping[str, pd.DataFrame]) -> report.Chosen | None:
    """Choose among all trials of all networks by validation accuracy; evaluate the chosen one on the test images."""
    candidates = []
    for model, table in results.items():
        if (point := best_point(table)) is not None:
            accuracy = at_point(last_epochs(table), point)["val_accuracy"].mean()  # over the seeds
            candidates.append((accuracy, model, point))
    if not candidates:
        return None
    val_accuracy, model, point = max(candidates, key=lambda candidate: candidate[0])
    test_accuracy = exercises[model].test(point)
    if test_accuracy is None:
        print(f"\nchosen: {model}; its checkpoint is not on this machine, so there is no test accuracy")
        return None
    print(f"\nchosen: {model}, validation accuracy {val_accuracy:.1%}, test accuracy {test_accuracy:.1%}")
    return report.Chosen(model, point, val_accuracy, test_accuracy, len(exercises[model].images.test))
