"""Checks of lesson 4, the hyper-parameter exercise."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from inspect import Parameter, signature
from itertools import islice
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import near
from cnnlesson.checks.verdict import Wrong, exercise, filled_in, reject, returned
from cnnlesson.data import ImageSet
from cnnlesson.experiments.trial import MOMENTUM
from cnnlesson.results import best_point
from cnnlesson.runtime.device import find_device
from cnnlesson.training import Epoch, evaluate, train_one_epoch

progress = partial(verdict.progress, __name__)

OWN_VERSIONS = {
    "student_train_one_epoch": lambda *arguments: train_one_epoch(*arguments).loss,
    "student_evaluate": lambda *arguments: evaluate(*arguments)[:2],
}

POINT = ["lr", "batch_size", "weight_decay"]


# The two loops.


class _EverySecond(nn.Module):
    """Dropout without chance: in training mode it zeroes every second input and doubles the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2 * (torch.arange(x.shape[1], device=x.device) % 2)) if self.training else x


class _ListOfBatches(list):
    """With the attribute `device`, as `Batches` have it."""


class _Watched:
    """A small network with batch norm and dropout, its batches and optimizer, and a record of what happens to them."""

    def __init__(self, sizes: Sequence[int], seed: int):
        device = find_device(None)
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), _EverySecond(), nn.Linear(8, 3)]
        self.model = nn.Sequential(*layers).to(device)
        self.batches = _ListOfBatches(
            (2 * torch.randn(size, 3, 2, 2, device=device) + 1, torch.randint(3, (size,), device=device))
            for size in sizes
        )
        self.batches.device = device
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.passes = []  # (was the network in training mode?, were gradients recorded?)
        self.backwards = []
        self.steps = []  # did the weights have a gradient?
        self.model.register_forward_hook(lambda net, _, out: self.passes.append((net.training, out.requires_grad)))
        self.model[1].weight.register_hook(self.backwards.append)
        self.optimizer.register_step_pre_hook(lambda *_: self.steps.append(self.has_gradient()))

    def has_gradient(self) -> bool:
        gradient = self.model[1].weight.grad
        return gradient is not None and bool(gradient.any())

    def weights(self) -> torch.Tensor:
        return parameters_to_vector(self.model.parameters())


def _loop(watched: _Watched, train=True, loss_of=F.cross_entropy, zero_each_batch=True) -> np.ndarray:
    """The trusted training or evaluation, or one with a mistake: losses, accuracies and sizes of the batches."""
    watched.model.train(train)
    figures = []
    with torch.set_grad_enabled(train):
        for images, labels in watched.batches:
            logits = watched.model(images)
            loss = loss_of(logits, labels)
            if train:
                if zero_each_batch:
                    watched.optimizer.zero_grad()
                loss.backward()
                watched.optimizer.step()
            accuracy = (logits.argmax(1) == labels).float().mean()
            figures.append((loss.item(), accuracy.item(), len(labels)))
    return np.array(figures).T  # (3, batches)


def _softmax_first(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.softmax(1), labels)


SOFTMAX_FIRST = "There is a softmax before F.cross_entropy, which applies softmax itself: pass it the logits."
TRAINING_MISTAKES = {  # options of `_loop`
    "The gradients of all batches add up: call optimizer.zero_grad() for each batch.": {"zero_each_batch": False},
    SOFTMAX_FIRST: {"loss_of": _softmax_first},
    "The loss is summed over the batch, so larger batches take larger steps: keep F.cross_entropy's default, mean.": {
        "loss_of": partial(F.cross_entropy, reduction="sum")
    },
    "The loss is a mean squared error: use the cross-entropy of logits and labels.": {
        "loss_of": lambda logits, labels: F.mse_loss(logits, F.one_hot(labels, 3).float())
    },
}
SIZES = ((6, 6, 3), (5, 4, 2, 2))  # of the batches: the last one is smaller


@exercise
def student_train_one_epoch(answer: Callable) -> None:
    """(model, batches, optimizer) -> the mean loss over the images, a float; the model is trained."""
    for seed, sizes in enumerate(SIZES):
        ours, theirs = _Watched(sizes, seed), _Watched(sizes, seed)
        losses, _, counts = _loop(ours)
        theirs.model.eval()  # as an evaluation leaves it
        with _errors_explained():
            loss = answer(theirs.model, theirs.batches, theirs.optimizer)
        training, _ = _passes(theirs)
        if not all(training):
            when = "called too late" if any(training) else "never called"
            raise Wrong(f"In evaluation mode, dropout and batch statistics are off: model.train() is {when}.")
        if not theirs.steps and not theirs.backwards:
            raise Wrong("No weight changes: loss.backward() and optimizer.step() are never called.")
        if not theirs.steps:
            raise Wrong("The argument optimizer makes no step, so no weight changes: optimizer.step() is never called.")
        if not theirs.backwards:
            raise Wrong("The optimizer steps without a gradient: loss.backward() is never called.")
        if not any(theirs.steps):
            raise Wrong("The gradients are cleared before each step: zero_grad() is between backward() and step().")
        if len(theirs.steps) < len(sizes):
            raise Wrong(f"There are fewer steps than batches: call optimizer.step() for each of {len(sizes)} batches.")
        if not near(theirs.weights(), ours.weights()):
            for message, options in TRAINING_MISTAKES.items():
                mistaken = _Watched(sizes, seed)
                _loop(mistaken, **options)
                reject(theirs.weights(), {message: mistaken.weights()}, near)
            raise Wrong("The weights differ from a plain loop's: zero_grad, forward, cross-entropy, backward, step.")
        _check_float("mean loss", loss)
        _check_mean("loss", loss, losses, counts)


@exercise
def student_evaluate(answer: Callable) -> None:
    """(model, batches) -> (mean loss, accuracy) over the images, both floats; the model does not change."""
    for seed, sizes in enumerate(SIZES):
        ours, theirs = _Watched(sizes, seed), _Watched(sizes, seed)
        losses, accuracies, counts = _loop(ours, train=False)
        with_softmax, *_ = _loop(ours, train=False, loss_of=_softmax_first)
        theirs.model.train()  # as a training loop leaves it
        with _errors_explained():
            scores = answer(theirs.model, theirs.batches)
        if theirs.steps or not near(theirs.weights(), ours.weights()):
            raise Wrong("The weights have changed: an evaluation must not call optimizer.step().")
        if theirs.backwards:
            raise Wrong("It calls backward(), but an evaluation needs no gradients.")
        training, recorded = _passes(theirs)
        if any(training):
            when = "never called" if all(training) else "called too late"
            raise Wrong(f"In training mode, dropout and batch statistics are on: model.eval() is {when}.")
        if any(recorded):
            raise Wrong("Gradients are recorded, which costs memory and time: use torch.no_grad().")
        if not isinstance(scores, tuple | list) or len(scores) != 2:
            raise Wrong("It must return two numbers: return loss, accuracy")
        loss, accuracy = scores
        _check_float("loss", loss)
        _check_float("accuracy", accuracy)
        right_loss, right_accuracy = np.average([losses, accuracies], axis=1, weights=counts)
        if _close(loss, right_accuracy) and _close(accuracy, right_loss):
            raise Wrong("The two numbers are swapped: return the loss first, then the accuracy.")
        if _close(loss, np.average(with_softmax, weights=counts)):
            raise Wrong(SOFTMAX_FIRST)
        _check_mean("loss", loss, losses, counts)
        _check_mean("accuracy", accuracy, accuracies, counts)


UNREADABLE = {  # what an error means, and a part of its message
    "The arguments of F.cross_entropy are swapped: pass the logits, then the labels.": "not implemented for 'Long'",
    "optimizer.step() is called before loss.backward(), and changes the weights that it uses.": "inplace operation",
    "backward() has no graph: gradients are switched off (no_grad), or the loss is detached.": "does not require grad",
    "train takes checkpoint as its scheduler: pass checkpoint=checkpoint.": "Path' object has no attribute 'step'",
    "A new trial has no file at checkpoint yet: only pass the path to train.": "directory: 'first.pt'",
    "train finds something else in the file at checkpoint: let only train write it.": "is damaged",
}


@contextmanager
def _errors_explained() -> Iterator[None]:
    """Raise `Wrong` for errors that a beginner cannot read."""
    try:
        yield
    except Exception as error:
        reject(str(error), UNREADABLE, operator.contains)
        raise


def _passes(watched: _Watched) -> Iterator[tuple]:
    """For all forward passes: was the network in training mode? And were gradients recorded?"""
    seen, batches = len(watched.passes), len(watched.batches)
    if seen < batches:
        raise Wrong(f"The network sees {seen} of {batches} batches: is there a return inside the loop?")
    return zip(*watched.passes, strict=True)


def _check_float(name: str, value: object) -> None:
    if isinstance(returned(value), torch.Tensor) and value.requires_grad:
        raise Wrong(f"The {name} is a tensor that keeps the graph of every batch in memory: use loss.item().")
    if isinstance(value, torch.Tensor):
        raise Wrong(f"The {name} is a tensor: return a float, with .item().")
    if not isinstance(value, Real):
        raise Wrong(f"The {name} must be a float, not a {type(value).__name__}.")


def _check_mean(name: str, given: float, values: np.ndarray, sizes: np.ndarray) -> None:
    """Raise `Wrong` unless `given` is the mean over all images; the message names the mistake with this result."""
    mean, total, num_images = np.average(values, weights=sizes), values @ sizes, sizes.sum()
    if _close(given, mean):
        return
    mistakes = {
        "The loss has the wrong sign: cross-entropy is never negative.": -mean,
        "Each loss is a batch's mean: multiply it by the batch's size, or it is too small.": values.sum() / num_images,
    }
    hint = "which losses do you add, and what do you divide by?"
    if name == "accuracy":
        mistakes = {
            "The accuracy is in percent: return a share between 0 and 1.": 100 * mean,
            "It returns the number of right answers: divide by the number of images.": total,
            "It returns the share of wrong answers.": 1 - mean,
        }
        hint = "the predicted class of an image has the largest of its own logits (argmax over dim=1)."
    mistakes |= {
        f"It returns the {name} of the last batch only: return the mean over all images.": values[-1],
        f"It returns the {name} of the first batch only: return the mean over all images.": values[0],
        f"The {name} is the mean of the batch means, in which images of a smaller batch count more: weight each batch "
        "by its number of images.": values.mean(),
        f"The {name} is summed over the batches, but not averaged.": values.sum(),
        f"The {name} is summed over the images, but not averaged: divide by the number of images.": total,
        f"The {name} is summed over the images, but divided by the number of batches.": total / len(values),
    }
    reject(given, mistakes, _close)
    batches = ", ".join(f"{size:g}" for size in sizes)
    raise Wrong(f"The {name} is {given:.4g}, not the mean of batches of {batches} images: {hint}")


# A trial.

ARGUMENTS = (*POINT, "train_set", "val_set", "build_model", "image_size", "epochs", "seed", "checkpoint")
SIGNATURE = f"def run({', '.join(ARGUMENTS)})"
NUM_TRAIN, NUM_VAL = 20, 300
OTHER_NETWORK = "The argument build_model is not called: call it inside run, or all trials share one network."


class _Trial:
    """A call of `run` with small stand-ins as its arguments, and a record of what it does with them."""

    def __init__(self, checkpoint: Path, **changed):
        # Each image is a single grey, recognisable at any size: training images are dark, validation images light. The
        # left half of a training image is lighter by 30, so that a flip shows.
        greys = 5 * torch.arange(NUM_TRAIN), 156 + torch.arange(NUM_VAL) % 100
        images = [grey.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 6, 6) for grey in greys]
        images[0][..., :3] += 30
        train_set, val_set = (ImageSet(one, torch.arange(len(one)) % 3, ("a", "b", "c")) for one in images)
        values = (0.05, 4, 0.01, train_set, val_set, self._build_model, 8, 2, 11, checkpoint)
        self.arguments = dict(zip(ARGUMENTS, values, strict=True)) | changed
        self.models = []
        self.initial_weights = []  # of each model
        self.trained_model = None
        # The greys of the images, in their order: below 0 and all different in train_set, above 0 in val_set.
        self.trained, self.evaluated = [], []
        self.has_other_images = self.has_flips = False
        self.batch_sizes = set()  # in training mode
        self.pixels = set()
        self.trained_by_first = 0  # number of images trained on when the first epoch was yielded
        self.steps = []  # (the optimizer, the settings of its first group)
        self.epochs: list[Epoch] = []

    def _build_model(self) -> nn.Module:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).to(find_device(None))
        self.models.append(model)
        self.initial_weights.append(model[2].weight.detach().clone())
        return model

    def _forward(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if not self.models:
            raise Wrong(OTHER_NETWORK)
        if module in self.models:
            images = inputs[0].detach().float()  # (N, 3, S, S)
            greys = [round(grey, 2) for grey in images.mean(dim=(1, 2, 3)).tolist()]
            contrasts = images[..., 0] - images[..., -1]  # (N, 3, S)
            is_light = images.mean(dim=(1, 2, 3)) > 0
            self.has_other_images |= bool(contrasts[is_light].any() or images.std(dim=2).max() > 1e-3)
            self.has_flips |= bool((contrasts[~is_light] <= 0).any())
            self.pixels.add(images.shape[-1])
            if module.training:
                self.trained_model = module
                self.batch_sizes.add(len(greys))
                self.trained += greys
            else:
                self.evaluated += greys

    def run(self, answer: Callable, max_epochs: int | None = None) -> "_Trial":
        """Collect the epochs that `answer` yields, and watch all networks and optimizers."""

        def record_step(optimizer: torch.optim.Optimizer, *arguments) -> None:
            self.steps.append((optimizer, dict(optimizer.param_groups[0])))

        with register_module_forward_pre_hook(self._forward), register_optimizer_step_pre_hook(record_step):
            epochs = answer(**self.arguments)
            if not isinstance(epochs, Iterator):
                what = {Epoch: "one Epoch", type(None): "None"}.get(type(epochs), f"a {type(epochs).__name__}")
                raise Wrong(f"It returns {what}: yield each Epoch as soon as it ends.")
            for epoch in islice(epochs, max_epochs):
                if not isinstance(epoch, Epoch):
                    what = {list: "all of them in a list"}.get(type(epoch), f"a {type(epoch).__name__}")
                    raise Wrong(f"It must yield Epochs one by one, but yields {what}.")
                self.epochs.append(epoch)
                self.trained_by_first = self.trained_by_first or len(self.trained)
        return self


@exercise
def run(answer: Callable) -> None:
    """run(lr, batch_size, weight_decay, train_set, val_set, ...) trains a new network and yields its Epochs.

    It is called with small stand-ins as arguments. A trial is also stopped after an epoch and started again.
    """
    _check_parameters(answer)
    # In an empty folder, so that no file stays in the student's.
    with TemporaryDirectory() as folder, chdir(folder), _errors_explained():
        first = _Trial(Path("first.pt"))
        others = {"lr": 0.02, "batch_size": 8, "weight_decay": 0.002, "image_size": 10, "epochs": 3}
        second = _Trial(Path("second.pt"), **others)
        other_seed = _Trial(Path("other_seed.pt"), seed=12)
        for chance, trial in enumerate((first, second, other_seed)):
            torch.manual_seed(chance)
            trial.run(answer)
            _check_images(trial)
            _check_optimizer(trial)
            _check_epochs(trial)
        _check_seeds(first, second, other_seed)
        torch.manual_seed(4)
        _check_resuming(answer, first, Path("stopped.pt"))


def _check_parameters(answer: Callable) -> None:
    """The search passes every argument by name."""
    if not callable(answer) or isinstance(answer, nn.Module):
        raise Wrong(f"run must be a function: {SIGNATURE}")
    parameters = signature(answer).parameters
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    for name in ARGUMENTS:
        if name not in parameters and not takes_any:
            raise Wrong(f"The parameter {name} is missing. The search passes every argument by name: {SIGNATURE}")
    for name, one in parameters.items():
        is_variadic = one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if name not in ARGUMENTS and one.default is Parameter.empty and not is_variadic:
            raise Wrong(f"The search passes no argument {name}: {SIGNATURE}")


def _check_images(trial: _Trial) -> None:
    """The network is trained and evaluated on the right images, in batches of the right size."""
    if not trial.models:
        raise Wrong(OTHER_NETWORK)
    if not trial.epochs:
        raise Wrong("It yields nothing.")
    if trial.has_other_images:
        raise Wrong("The network gets images of neither train_set nor val_set: use these arguments, not other images.")
    if trial.has_flips:
        raise Wrong("The training images are flipped: make the Batches without augment, as all trials of the lesson.")
    if not trial.trained:
        raise Wrong("The network from build_model() is never trained: do you pass another one to train?")
    if max(trial.trained) > 0:
        raise Wrong("The network is trained on validation images: train takes the training batches first.")
    expected, largest = trial.arguments["batch_size"], max(trial.batch_sizes)
    if largest != expected:
        raise Wrong(f"Called with batch_size={expected}, it trains on batches of {largest}: batch_size is not used.")
    if max(trial.evaluated, default=0) <= 0:
        raise Wrong("It is not evaluated on val_set: are the validation batches made from the training images?")
    evaluated = len(trial.evaluated) / len(trial.epochs)
    if evaluated < NUM_VAL:
        raise Wrong(f"It is evaluated on {evaluated:.0f} of the {NUM_VAL} images of val_set: use all of them.")
    expected = trial.arguments["image_size"]
    for found in trial.pixels - {expected}:
        hint = "pass image_size to both Batches"
        raise Wrong(f"Called with image_size={expected}, the network gets images of {found} pixels: {hint}.")


def _check_optimizer(trial: _Trial) -> None:
    if not trial.steps:
        raise Wrong("No optimizer makes a step: do you pass one to train?")
    optimizer, settings = trial.steps[0]
    parameters = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    own = set(trial.trained_model.parameters())
    if not own & parameters:
        raise Wrong("The optimizer holds the weights of another network: make it from the new model.parameters().")
    if own - parameters:
        raise Wrong("The optimizer holds only a part of the weights: pass it model.parameters().")
    if type(optimizer) is not torch.optim.SGD:
        raise Wrong(f"The optimizer is {type(optimizer).__name__}: use torch.optim.SGD with momentum {MOMENTUM}.")
    if not _close(settings["momentum"], MOMENTUM):
        raise Wrong(f"The optimizer's momentum is {settings['momentum']:g}: use {MOMENTUM}.")
    for name in ("lr", "weight_decay"):
        expected, used = trial.arguments[name], settings[name]
        if not _close(used, expected):
            raise Wrong(f"Called with {name}={expected:g}, its optimizer has {name}={used:g}: {name} is not used.")
    if len({settings["lr"] for _, settings in trial.steps}) > 1:
        raise Wrong("The learning rate changes during the training: use no scheduler, so that it is that of the point.")
    for name in ("nesterov", "dampening", "maximize"):
        if settings[name]:
            raise Wrong(f"The optimizer has {name}={settings[name]}: use plain SGD with momentum {MOMENTUM}.")


def _check_epochs(trial: _Trial) -> None:
    """The epochs are complete, yielded one by one, and saved."""
    epochs, trained = trial.arguments["epochs"], len(trial.trained)
    numbers = [epoch.number for epoch in trial.epochs]
    if trained != epochs * NUM_TRAIN:
        found = f"Called with epochs={epochs} and {NUM_TRAIN} training images, it trains on {trained} images instead of"
        raise Wrong(f"{found} {epochs * NUM_TRAIN}: does it use the argument epochs, and every batch?")
    if len(numbers) < epochs:
        raise Wrong(f"It yields {len(numbers)} of {epochs} epochs: yield each of them, not only the last.")
    if trial.trained_by_first > NUM_TRAIN:
        raise Wrong("All epochs are trained before the first one is yielded: yield each as soon as it ends.")
    if numbers != list(range(1, epochs + 1)):
        raise Wrong(f"The epochs have the numbers {numbers}: count from 1.")
    if not trial.arguments["checkpoint"].exists():
        for file in sorted(file.name for file in Path().rglob("*") if file.is_file()):
            raise Wrong(f"The trial is saved in {file!r}, which trials may share: pass checkpoint to train as it is.")
        raise Wrong("The trial is not saved, so it is lost when it is stopped: pass checkpoint=checkpoint to train.")


def _check_seeds(first: _Trial, second: _Trial, other_seed: _Trial) -> None:
    """The seed, and nothing else, decides the initial weights and the order of the images."""
    if not torch.equal(first.initial_weights[0], second.initial_weights[0]):
        raise Wrong("Two trials start from different weights: call torch.manual_seed(seed) before build_model().")
    if torch.equal(first.initial_weights[0], other_seed.initial_weights[0]):
        raise Wrong("Another seed results in the same initial weights: pass the argument seed to torch.manual_seed.")
    order = first.trained
    if order[:NUM_TRAIN] == order[NUM_TRAIN:]:
        hint = "pass seed=seed to Batches, and in a loop of your own call set_epoch"
        raise Wrong(f"The training images come in the same order in every epoch: {hint}.")
    if order != second.trained[: len(order)]:
        raise Wrong("Two trials see the training images in different orders: pass seed=seed to Batches.")
    if order == other_seed.trained:
        raise Wrong("Another seed results in the same order of the images: pass the argument seed to Batches.")


def _check_resuming(answer: Callable, complete: _Trial, checkpoint: Path) -> None:
    """Stop a trial after an epoch, start it again, and compare it with a complete one."""
    _Trial(checkpoint).run(answer, max_epochs=1)
    resumed = _Trial(checkpoint).run(answer)
    again = "A trial that is stopped after epoch 1 and started again with the same checkpoint"
    numbers = [epoch.number for epoch in resumed.epochs]
    if len(resumed.trained) == len(complete.trained):
        raise Wrong(f"{again} repeats that epoch: pass checkpoint to train, and leave the file as train writes it.")
    if numbers != [1, 2]:
        raise Wrong(f"{again} yields the epochs {numbers}: yield all of them, first those in the file.")
    same_loss = _close(resumed.epochs[-1].val_loss, complete.epochs[-1].val_loss)
    if resumed.trained != complete.trained[NUM_TRAIN:] or not same_loss:
        what = "the weights, the optimizer's momentum and the order of the images must continue as they were"
        raise Wrong(f"{again} ends differently from one that is not stopped: {what}. train does that.")
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
        resumed.arguments["build_model"]().load_state_dict(weights)
    except Exception:  # whatever loading another kind of file raises
        hint = "from which the lesson loads the best network: let train write it"
        raise Wrong(f'The file at checkpoint has no weights under "model", {hint}.') from None


# The choice.


def package_pick_best(results: pd.DataFrame) -> tuple[float, int, float]:
    """The exercise's `pick_best`, for a notebook that continues although the student's is not right yet."""
    best = best_point(results[[*POINT, "epoch", "val_accuracy", "state"]])
    if best is None:
        raise ValueError("no trial completed, so there is no best point: try smaller learning rates")
    return tuple(best[name] for name in POINT)


def _trials(*trials: tuple, failed: int) -> pd.DataFrame:
    """A table of trials: each a point, then per epoch the training, validation and test accuracy and diverged.

    The trial at the place `failed` has failed.
    """
    rows = [(*point, number, *epoch) for point, *epochs in trials for number, epoch in enumerate(epochs, start=1)]
    columns = [*POINT, "epoch", "train_accuracy", "val_accuracy", "test_accuracy", "diverged"]
    table = pd.DataFrame(rows, columns=columns)
    has_diverged = table.groupby(POINT)["diverged"].transform("any")
    has_failed = (table[POINT] == list(trials[failed][0])).all(axis=1)
    return table.assign(state=np.select([has_diverged, has_failed], ["diverged", "failed"], "completed"))


TABLES = (
    # The best on validation, on training, on test, in an earlier epoch, and of those that diverged are all different.
    _trials(
        ((0.1, 16, 5e-4), (0.30, 0.71, 0.30, False), (0.20, 0.20, 0.20, True)),
        ((0.1, 32, 5e-4), (0.20, 0.21, 0.20, False), (0.20, 0.90, 0.20, True)),
        ((0.001, 16, 5e-4), (0.40, 0.41, 0.40, False), (0.60, 0.55, 0.54, False)),
        ((0.001, 32, 5e-4), (0.45, 0.66, 0.42, False), (0.70, 0.50, 0.52, False)),
        ((0.001, 64, 5e-4), (0.42, 0.40, 0.43, False), (0.90, 0.45, 0.44, False)),
        ((0.0001, 16, 5e-4), (0.20, 0.22, 0.30, False), (0.33, 0.35, 0.62, False)),
        ((0.0001, 64, 5e-4), (0.20, 0.25, 0.20, False), (0.50, 0.60, 0.50, False)),
        ((0.0001, 32, 5e-4), (0.10, 0.11, 0.10, False), (0.12, 0.12, 0.12, False)),
        failed=6,
    ),
    # Other decays, the best one neither first nor last, and a diverged trial without an accuracy.
    _trials(
        ((0.01, 32, 0.0), (0.50, 0.52, 0.50, False), (0.95, 0.60, 0.66, False)),
        ((0.01, 32, 0.05), (0.48, 0.50, 0.51, False), (0.70, 0.68, 0.61, False)),
        ((0.01, 32, 0.5), (0.30, 0.72, 0.30, False), (0.31, 0.33, 0.30, False)),
        ((0.01, 16, 0.05), (0.20, 0.30, 0.20, False), (0.20, 0.70, 0.20, False)),
        ((1.0, 16, 0.05), (0.20, 0.80, 0.20, False), (0.20, 0.85, 0.20, True)),
        ((1.0, 32, 0.05), (0.20, 0.20, 0.20, False), (math.nan, math.nan, math.nan, True)),
        failed=3,
    ),
)


def _mistaken_choices(table: pd.DataFrame) -> dict[str, tuple]:
    """The points that mistakes choose, by message."""
    last, finite = table.groupby(POINT).tail(1), table[~table["diverged"] & (table["state"] != "failed")]
    completed = table[table["state"] == "completed"]
    ended = completed.groupby(POINT).tail(1)  # the rows to choose from

    def best(rows: pd.DataFrame, column: str = "val_accuracy") -> pd.DataFrame:
        return rows.nlargest(1, column)

    rows = {
        "It chooses by the test accuracy: then no unseen images are left for the report.": best(ended, "test_accuracy"),
        "It chooses by the training accuracy, which memorising the images can raise.": best(ended, "train_accuracy"),
        "It takes the best epoch of any trial: a trial counts by its last epoch.": best(completed),
        "It considers a trial that diverged: see the column state.": best(last),
        "It considers a trial that failed: see the column state.": best(last[~last["diverged"]]),
        "It considers earlier epochs of a trial that diverged: all of its rows must go.": best(finite),
        "It takes the smallest validation accuracy: take the largest.": ended.nsmallest(1, "val_accuracy"),
        "It takes the first row of the table: do you sort it, and use the sorted one?": table.head(1),
        "It takes the last row of the table: do you sort it, and use the sorted one?": table.tail(1),
    }
    return {message: tuple(one[POINT].iloc[0]) for message, one in rows.items()}


@exercise
def pick_best(answer: Callable) -> None:
    """results, a row per trial and epoch -> the (lr, batch_size, weight_decay) to choose."""
    given = [_as_point(answer(table.copy()), table) for table in TABLES]
    if given == [package_pick_best(table) for table in TABLES]:
        return
    choices = [_mistaken_choices(table) for table in TABLES]
    reject(given, {message: [one[message] for one in choices] for message in choices[0]}, operator.eq)
    raise Wrong("Another trial ends with a higher validation accuracy: print the last epoch's rows, and compare.")


def _as_point(given: object, table: pd.DataFrame) -> tuple[float, ...]:
    """What an answer returns for `table`, as a point of the table."""
    if isinstance(returned(given), Real):
        raise Wrong("It returns an accuracy or a row's index: return the point, (lr, batch_size, weight_decay).")
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3:
        raise Wrong("It must return three numbers, not rows of the table: (lr, batch_size, weight_decay).")
    if not (table[POINT] == list(values)).all(axis=1).any():
        raise Wrong(f"{values} is not a point of the table: the order is (lr, batch_size, weight_decay).")
    return values


# The conclusions, from the tables of the exercise: resnet18, 4,500 training images, 3 epochs.

STEPS = math.ceil(4500 / 16)  # per epoch
CONCLUSIONS = {"a": "learned worse", "b": 16, "c": 3 * STEPS, "e": "shrinks", "f": 2, "h": 1}
CONCLUSIONS |= {"g": "validation", "d": ("learning rate 0.01", "batch size 8")}  # d: either is right
MISTAKES = {
    "a": {
        "diverged": "At 0.1 no trial diverged: each has an accuracy. Compare its row with the others.",
        "stayed at chance": "With ten classes, chance level is 10 %: is the row of 0.1 at that level?",
        "learned best": "Compare the row of 0.1 with the row of 0.001.",
    },
    "b": {
        32: "An epoch has one step per batch. Do fewer images per batch make more batches, or fewer?",
        64: "An epoch has one step per batch. Do more images per batch make more batches, or fewer?",
    },
    "c": {
        STEPS: "That is one epoch: the trial has three.",
        4500 // 16 * 3: "The last batch is smaller than the others, but it is a step too: round up in each epoch.",
        math.ceil(4500 * 3 / 16): "Two epochs do not share a batch: round up in each epoch, then multiply.",
        4500 / 16 * 3: "A number of steps is an integer: what happens to the images that do not fill a batch?",
        math.ceil(5000 / 16) * 3: "500 of the 5,000 images are for validation: the network is not trained on them.",
        4500 * 3: "That counts images: a step takes a whole batch of them.",
    },
    "d": {
        "batch size 128": "From 64 to 16 the accuracy rises: in which direction would you continue?",
        "learning rate 1": "From 0.001 to 0.1 the accuracy falls: would an even higher rate help?",
        "nothing": "The best cell is on an edge of the table: you do not know yet what lies beyond.",
    },
    "e": {
        "grows": "Work out training minus validation for a decay of 0 and for 0.05: which is smaller?",
        "stays": "Work out training minus validation for a decay of 0 and for 0.05: they are different.",
    },
    "f": {
        0.4: "That is in percentage points: how many images are 0.4 % of 500?",
        200: "That is 0.4 of 500, but the difference is 0.4 %.",
        18: "4,500 images are for training: the validation accuracy is measured on 500.",
        20: "There are 5,000 images in total: the validation accuracy is measured on 500.",
        34: "That is the difference between decays 0 and 0.05: compare 0 and 0.0005.",
    },
    "g": {
        "training": "A network can memorise its training images: their accuracy says little about other images.",
        "test": "Images that you base a choice on are no longer unseen: keep the test images for the report.",
    },
    "h": {
        0: "Then you would report the accuracy that you chose by: it is too optimistic.",
        9: "That is once for each point of the grid: then it may influence your choice, even without your meaning to.",
    },
}


@exercise
def conclusions(answer: dict) -> None:
    """A dict of question letter to answer; each answer follows from the tables in the exercise's text."""
    for letter, right in sorted(CONCLUSIONS.items()):
        given = filled_in(answer, CONCLUSIONS)[letter]
        rights = right if isinstance(right, tuple) else (right,)
        if isinstance(rights[0], str):
            given = given.strip().lower() if isinstance(given, str) else given
            if given not in (*rights, *MISTAKES[letter]):
                raise Wrong(f"{letter}: choose one of {', '.join(map(repr, sorted([*rights, *MISTAKES[letter]])))}.")
        elif not isinstance(given, Real) or isinstance(given, bool):
            raise Wrong(f"{letter}: the answer is a number.")
        reject(given, {f"{letter}: {message}": value for value, message in MISTAKES[letter].items()}, operator.eq)
        if given not in rights:
            raise Wrong(f"{letter}: {given:g} does not follow from the tables: work it out from the numbers in them.")


def _close(given: object, expected: float) -> bool:
    return math.isclose(float(given), expected, rel_tol=1e-3, abs_tol=1e-7)
