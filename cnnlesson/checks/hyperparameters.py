"""Checks of lesson 4, the hyper-parameter exercise."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from inspect import Parameter, signature
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cnnlesson.checks import verdict
from cnnlesson.checks.verdict import Wrong, exercise, filled_in, reject, returned
from cnnlesson.data import ImageSet
from cnnlesson.experiments.trial import MOMENTUM
from cnnlesson.results import best_point
from cnnlesson.runtime.device import find_device
from cnnlesson.training import Epoch

progress = partial(verdict.progress, __name__)

POINT = ["lr", "batch_size", "weight_decay"]


# The two loops.


class _EverySecond(nn.Module):
    """Dropout without chance: in training mode it zeroes every second input and doubles the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2 * (torch.arange(x.shape[1], device=x.device) % 2)) if self.training else x


class _Watched:
    """A small network with batch norm and dropout, its batches and optimizer, and a record of what happens to them."""

    def __init__(self, sizes: Sequence[int], seed: int):
        device = find_device(None)
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), _EverySecond(), nn.Linear(8, 3)
        ).to(device)
        self.batches = [
            (2 * torch.randn(size, 3, 2, 2, device=device) + 1, torch.randint(3, (size,), device=device))
            for size in sizes
        ]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.forget()
        self.model.register_forward_hook(self._forward)
        self.model[1].weight.register_hook(self._backward)
        self.optimizer.register_step_pre_hook(self._step)

    def forget(self) -> None:
        self.training = []  # per forward pass: was the network in training mode?
        self.gradients = []  # per forward pass: were gradients recorded?
        self.backwards = 0
        self.steps = []  # per step: did the weights have a gradient?

    def _forward(self, model: nn.Module, inputs: tuple, logits: torch.Tensor) -> None:
        self.training.append(model.training)
        self.gradients.append(logits.requires_grad)

    def _backward(self, gradient: torch.Tensor) -> None:
        self.backwards += 1

    def _step(self, *arguments) -> None:
        gradient = self.model[1].weight.grad
        self.steps.append(gradient is not None and bool(gradient.abs().sum() > 0))

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def statistics(self) -> torch.Tensor:
        return torch.cat([buffer.flatten().float() for buffer in self.model.buffers()])


class _Batch(NamedTuple):
    """The trusted loop's figures for one batch."""

    loss: float
    accuracy: float
    size: int


def _loop(
    watched: _Watched, train: bool = True, loss_of: Callable = F.cross_entropy, zero_each_batch: bool = True
) -> list[_Batch]:
    """The trusted training loop, or evaluation, or one with a mistake."""
    watched.model.train(train)
    seen = []
    with torch.set_grad_enabled(train):
        for images, labels in watched.batches:
            logits = watched.model(images)
            loss = loss_of(logits, labels)
            if train:
                if zero_each_batch:
                    watched.optimizer.zero_grad()
                loss.backward()
                watched.optimizer.step()
            seen.append(_Batch(loss.item(), (logits.argmax(1) == labels).float().mean().item(), len(labels)))
    return seen


def _softmax_first(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.softmax(1), labels)


SOFTMAX_FIRST = "There is a softmax before F.cross_entropy, which applies softmax itself: pass it the logits."
SUMMED = "The loss is summed over the batch, so larger batches take larger steps: keep F.cross_entropy's default, mean."
TRAINING_MISTAKES = {  # options of `_loop`
    "The gradients of all batches add up: call optimizer.zero_grad() for each batch.": {"zero_each_batch": False},
    SOFTMAX_FIRST: {"loss_of": _softmax_first},
    SUMMED: {"loss_of": partial(F.cross_entropy, reduction="sum")},
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
        seen = _loop(ours)
        theirs.model.eval()  # as an evaluation leaves it
        loss = _call(answer, theirs, theirs.model, theirs.batches, theirs.optimizer)
        _check_all_batches(theirs)
        if not any(theirs.training):
            raise Wrong(
                "The network is in evaluation mode during training, so dropout is off and batch norm does not update "
                "its statistics: model.train() is never called."
            )
        if not all(theirs.training):
            raise Wrong("The network is in evaluation mode for some batches: is model.eval() called in the loop?")
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
        if not _near(theirs.weights(), ours.weights()):
            for message, options in TRAINING_MISTAKES.items():
                mistaken = _Watched(sizes, seed)
                _loop(mistaken, **options)
                reject(theirs.weights(), {message: mistaken.weights()}, _near)
            raise Wrong(
                "After the pass the weights differ from those of a plain loop. For each batch: clear the gradients, "
                "run the network once, compute the cross-entropy, call backward(), then step()."
            )
        _check_float("mean loss", loss)
        _check_loss(loss, seen)


@exercise
def student_evaluate(answer: Callable) -> None:
    """(model, batches) -> (mean loss, accuracy) over the images, both floats; the model does not change."""
    for seed, sizes in enumerate(SIZES):
        theirs = _Watched(sizes, seed)
        _loop(theirs)  # so that batch norm has statistics of its own
        theirs.optimizer.zero_grad()
        seen, with_softmax = _loop(theirs, train=False), _loop(theirs, train=False, loss_of=_softmax_first)
        theirs.forget()
        weights, statistics = theirs.weights(), theirs.statistics()
        theirs.model.train()  # as a training loop leaves it
        scores = _call(answer, theirs, theirs.model, theirs.batches)
        if theirs.steps or not _near(theirs.weights(), weights):
            raise Wrong("The weights have changed: an evaluation must not call optimizer.step().")
        if theirs.backwards:
            raise Wrong("It calls backward(), but an evaluation needs no gradients.")
        _check_all_batches(theirs)
        if any(theirs.training):
            raise Wrong(
                "The network is in training mode during the evaluation, so dropout is on and batch norm uses the "
                "statistics of the batch: model.eval() is "
                + ("never called." if all(theirs.training) else "called too late.")
            )
        if not _near(theirs.statistics(), statistics):
            raise Wrong("Batch norm's running statistics have changed: does the network also run in training mode?")
        if any(theirs.gradients):
            raise Wrong("Gradients are recorded, which costs memory and time: use torch.no_grad().")
        if not isinstance(scores, tuple | list) or len(scores) != 2:
            raise Wrong("It must return two numbers: return loss, accuracy")
        loss, accuracy = scores
        _check_float("loss", loss)
        _check_float("accuracy", accuracy)
        right_loss, right_accuracy = _over_images(seen)
        if _close(loss, right_accuracy) and _close(accuracy, right_loss):
            raise Wrong("The two numbers are swapped: return the loss first, then the accuracy.")
        if _close(loss, _over_images(with_softmax)[0]):
            raise Wrong(SOFTMAX_FIRST)
        _check_loss(loss, seen)
        _check_accuracy(accuracy, seen)


def _call(answer: Callable, watched: _Watched, *arguments) -> object:
    """The answer's result; errors that a beginner cannot read are explained."""
    _, labels = watched.batches[0]
    try:
        return answer(*arguments)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        try:
            F.cross_entropy(labels, torch.zeros(len(labels), 3, device=labels.device))
        except (RuntimeError, ValueError, IndexError, TypeError) as swapped:
            if str(error) == str(swapped):
                raise Wrong("The arguments of F.cross_entropy are swapped: pass the logits, then the labels.") from None
        if "modified by an inplace operation" in str(error):
            raise Wrong(
                "A step changes the weights before backward() has used them: optimizer.step() is called before "
                "loss.backward()."
            ) from None
        if "does not require grad" in str(error):
            raise Wrong(
                "backward() finds no graph: either gradients are switched off (torch.no_grad), or the loss has lost "
                "its graph (detach, or a new tensor)."
            ) from None
        raise


def _check_all_batches(watched: _Watched) -> None:
    seen, batches = len(watched.training), len(watched.batches)
    if seen < batches:
        raise Wrong(f"The network sees {seen} of {batches} batches: is there a return inside the loop?")


def _check_float(name: str, value: object) -> None:
    if isinstance(returned(value), torch.Tensor) and value.requires_grad:
        raise Wrong(f"The {name} is a tensor that keeps the graph of every batch in memory: use loss.item().")
    if isinstance(value, torch.Tensor):
        raise Wrong(f"The {name} is a tensor: return a float, with .item().")
    if not isinstance(value, Real):
        raise Wrong(f"The {name} must be a float, not a {type(value).__name__}.")


def _over_images(seen: Sequence[_Batch]) -> tuple[float, float]:
    """Mean loss and accuracy over all images."""
    num_images = sum(batch.size for batch in seen)
    return tuple(sum(batch[column] * batch.size for batch in seen) / num_images for column in (0, 1))


def _check_loss(loss: float, seen: Sequence[_Batch]) -> None:
    right, accuracy = _over_images(seen)
    mistakes = {
        "It returns the accuracy: return the mean loss.": accuracy,
        "The loss has the wrong sign: cross-entropy is never negative.": -right,
        "The loss of a batch is already a mean. Multiply it by the size of the batch before you divide by the number "
        "of images: now it is too small.": sum(batch.loss for batch in seen) / sum(batch.size for batch in seen),
    }
    hint = "which losses do you add, and what do you divide by?"
    _check_mean("loss", loss, right, seen, mistakes, hint)


def _check_accuracy(accuracy: float, seen: Sequence[_Batch]) -> None:
    right = _over_images(seen)[1]
    mistakes = {
        "The accuracy is in percent: return a share between 0 and 1.": 100 * right,
        "It returns the number of right answers: divide by the number of images.": right * sum(b.size for b in seen),
        "It returns the share of wrong answers.": 1 - right,
    }
    hint = "the predicted class of an image has the largest of its own logits (argmax over dim=1)."
    _check_mean("accuracy", accuracy, right, seen, mistakes, hint)


def _check_mean(
    name: str, given: float, right: float, seen: Sequence[_Batch], mistakes: Mapping[str, float], hint: str
) -> None:
    """Unless `given` is right, raise `Wrong` with the message of the mistake that results in this number."""
    if _close(given, right):
        return
    values, sizes = [getattr(batch, name) for batch in seen], [batch.size for batch in seen]
    total = right * sum(sizes)
    common = {
        f"It returns the {name} of the last batch only: return the mean over all images.": values[-1],
        f"It returns the {name} of the first batch only: return the mean over all images.": values[0],
        f"The {name} is the mean of the batch means. The last batch is smaller, so its images count more than others: "
        "weight each batch by its number of images.": sum(values) / len(values),
        f"The {name} is summed over the batches, but not averaged.": sum(values),
        f"The {name} is summed over the images, but not averaged: divide by the number of images.": total,
        f"The {name} is summed over the images, but divided by the number of batches.": total / len(values),
    }
    reject(given, mistakes | common, _close)
    raise Wrong(f"The {name} is {given:.4g}, not the mean of batches of {', '.join(map(str, sizes))} images: {hint}")


# A trial.

ARGUMENTS = (*POINT, "train_set", "val_set", "build_model", "image_size", "epochs", "seed", "checkpoint")
SIGNATURE = f"def run({', '.join(ARGUMENTS)})"
NUM_TRAIN, NUM_VAL = 20, 300
OTHER_NETWORK = (
    "The argument build_model is not called. A network made outside run is shared by all trials, and each continues "
    "where the last one ended: call build_model() inside run."
)


class _Pass(NamedTuple):
    """A batch that went through a network."""

    model: nn.Module
    is_training: bool
    of_validation: bool  # does it contain images of val_set?
    of_neither: bool  # does it contain images of neither set?
    pixels: int
    values: list[float]  # one per image; those of training images are all different


class _Trial:
    """A call of `run` with small stand-ins as its arguments, and a record of what it does with them."""

    def __init__(self, checkpoint: Path, **changed):
        # Each image is a single grey, recognisable at any size: training images are dark, validation images light.
        greys = 5 * torch.arange(NUM_TRAIN), 156 + torch.arange(NUM_VAL) % 100
        images = [grey.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 6, 6) for grey in greys]
        train_set, val_set = (ImageSet(one, torch.arange(len(one)) % 3, ("a", "b", "c")) for one in images)
        values = (0.05, 4, 0.01, train_set, val_set, self._build_model, 8, 2, 11, checkpoint)
        self.arguments = dict(zip(ARGUMENTS, values, strict=True)) | changed
        self.models = []
        self.initial_weights = None
        self.has_other_modules = False  # has anything run that is not a network from build_model?
        self.passes: list[_Pass] = []
        self.steps = []  # (class of the optimizer, settings of its first group, ids of its parameters)
        self.epochs: list[Epoch] = []
        self.trained_by_first = 0  # number of images trained on when the first epoch was yielded

    def _build_model(self) -> nn.Module:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).to(find_device(None))
        if self.initial_weights is None:
            self.initial_weights = model[2].weight.detach().clone()
        self.models.append(model)
        return model

    def _forward(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if not any(module is model for model in self.models):
            self.has_other_modules = True
            return
        images = inputs[0].detach().float()  # (N, 3, S, S)
        values = images.mean(dim=(1, 2, 3))
        of_validation, of_neither = bool((values > 0).any()), bool(images.std(dim=(2, 3)).max() > 1e-3)
        rounded = [round(value, 2) for value in values.tolist()]
        self.passes.append(_Pass(module, module.training, of_validation, of_neither, images.shape[-1], rounded))

    def _step(self, optimizer: torch.optim.Optimizer, *arguments) -> None:
        parameters = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
        self.steps.append((type(optimizer), settings, parameters))

    @contextmanager
    def start(self, answer: Callable) -> Iterator[object]:
        """What `answer` returns. Inside, networks and optimizers are watched, and some errors explained."""
        hooks = [register_module_forward_pre_hook(self._forward), register_optimizer_step_pre_hook(self._step)]
        try:
            yield answer(**self.arguments)
        except NotImplementedError:
            raise
        except AttributeError as error:
            if isinstance(error.obj, Path | str) and error.name == "step":
                raise Wrong("train takes checkpoint as its scheduler: pass checkpoint=checkpoint.") from None
            raise
        except FileNotFoundError as error:
            if str(error.filename) == str(self.arguments["checkpoint"]):
                raise Wrong("A new trial has no file at checkpoint yet: only pass the path to train.") from None
            raise
        except (RuntimeError, ValueError) as error:
            if "is damaged" in str(error):
                raise Wrong("train finds something else in the file at checkpoint: let only train write it.") from None
            if self.has_other_modules and not self.models:
                raise Wrong(OTHER_NETWORK) from None  # which cannot take the small images
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def trained(self) -> list[float]:
        """The values of the training images, in the order in which the network was trained on them."""
        return [value for one in self.passes if one.is_training and not one.of_validation for value in one.values]


@exercise
def run(answer: Callable) -> None:
    """run(lr, batch_size, weight_decay, train_set, val_set, ...) trains a new network and yields its Epochs.

    It is called with small stand-ins as arguments, in an empty folder. A trial is also stopped after an epoch and
    started again.
    """
    _check_parameters(answer)
    with TemporaryDirectory() as folder, chdir(folder):  # so that no file stays in the student's folder
        first = _Trial(Path(folder, "first.pt"))
        others = {"lr": 0.02, "batch_size": 8, "weight_decay": 0.002, "image_size": 10, "epochs": 3}
        second = _Trial(Path(folder, "second.pt"), **others)
        other_seed = _Trial(Path(folder, "other_seed.pt"), seed=12)
        for chance, trial in enumerate((first, second, other_seed)):
            torch.manual_seed(chance)
            _run_to_the_end(answer, trial)
            _check_images(trial)
            _check_optimizer(trial)
            _check_epochs(trial)
            _check_file(trial)
        _check_seeds(first, second, other_seed)
        torch.manual_seed(4)
        _check_resuming(answer, first, Path(folder, "stopped.pt"))


def _check_parameters(answer: Callable) -> None:
    """The search passes every argument by name, and a checkpoint only to a parameter of this name."""
    if not callable(answer) or isinstance(answer, nn.Module):
        raise Wrong(f"run must be a function: {SIGNATURE}")
    parameters = signature(answer).parameters.values()
    named = [one.name for one in parameters if one.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters)
    for name in ("checkpoint",) if takes_any else ARGUMENTS:
        if name not in named:
            raise Wrong(f"The parameter {name} is missing. The search passes every argument by name: {SIGNATURE}")
    for one in parameters:
        if one.name in named and one.name not in ARGUMENTS and one.default is Parameter.empty:
            raise Wrong(f"The search passes no argument {one.name}: {SIGNATURE}")


def _run_to_the_end(answer: Callable, trial: _Trial) -> None:
    with trial.start(answer) as epochs:
        if epochs is None:
            raise Wrong("It returns None: yield each Epoch, as train does.")
        if isinstance(epochs, Epoch):
            raise Wrong("It returns one Epoch: yield each of them as soon as it ends.")
        if not isinstance(epochs, Iterator):
            raise Wrong(f"It returns a {type(epochs).__name__}: yield each Epoch as soon as it ends.")
        for epoch in epochs:
            if not isinstance(epoch, Epoch):
                what = "all of them in a list" if isinstance(epoch, list | tuple) else f"a {type(epoch).__name__}"
                raise Wrong(f"It must yield Epochs one by one, but yields {what}.")
            trial.epochs.append(epoch)
            trial.trained_by_first = trial.trained_by_first or len(trial.trained())
    if not trial.models:
        raise Wrong(OTHER_NETWORK)
    if not trial.epochs:
        raise Wrong("It yields nothing.")


def _check_images(trial: _Trial) -> None:
    """The network is trained and evaluated on the right images, in batches of the right size."""
    training = [one for one in trial.passes if one.is_training]
    evaluation = [one for one in trial.passes if not one.is_training]
    if any(one.of_neither for one in trial.passes):
        raise Wrong("The network gets images of neither train_set nor val_set: use these arguments, not other images.")
    if any(one.of_validation for one in training):
        raise Wrong("The network is trained on validation images: train takes the training batches first.")
    if not training:
        raise Wrong("The network from build_model() is never trained: do you pass another one to train?")
    expected, largest = trial.arguments["batch_size"], max(len(one.values) for one in training)
    if largest != expected:
        raise Wrong(f"Called with batch_size={expected}, it trains on batches of {largest}: batch_size is not used.")
    if not evaluation:
        raise Wrong("The network is never evaluated on validation images in evaluation mode.")
    if not any(one.of_validation for one in evaluation):
        raise Wrong("The validation figures come from the training images: make batches of val_set.")
    expected = trial.arguments["image_size"]
    for one in trial.passes:
        if one.pixels != expected:
            found = f"Called with image_size={expected}, the network gets images of {one.pixels} pixels"
            raise Wrong(f"{found}: pass image_size to both Batches.")


def _check_optimizer(trial: _Trial) -> None:
    if not trial.steps:
        raise Wrong("No optimizer makes a step: do you pass one to train?")
    kind, settings, parameters = trial.steps[0]
    own = {id(parameter) for one in trial.passes if one.is_training for parameter in one.model.parameters()}
    if not own & parameters:
        raise Wrong("The optimizer holds the weights of another network: make it from the new model.parameters().")
    if own - parameters:
        raise Wrong("The optimizer holds only a part of the weights: pass it model.parameters().")
    if kind is not torch.optim.SGD:
        raise Wrong(f"The optimizer is {kind.__name__}: use torch.optim.SGD with momentum {MOMENTUM}.")
    if not _close(settings["momentum"], MOMENTUM):
        raise Wrong(f"The optimizer's momentum is {settings['momentum']:g}: use {MOMENTUM}.")
    for name in ("lr", "weight_decay"):
        expected, used = trial.arguments[name], settings[name]
        if not _close(used, expected):
            raise Wrong(f"Called with {name}={expected:g}, its optimizer has {name}={used:g}: {name} is not used.")


def _check_epochs(trial: _Trial) -> None:
    expected, trained = trial.arguments["epochs"], len(trial.trained())
    numbers = [epoch.number for epoch in trial.epochs]
    if trained != expected * NUM_TRAIN:
        raise Wrong(
            f"Called with epochs={expected} and {NUM_TRAIN} training images, it trains on {trained} images instead of "
            f"{expected * NUM_TRAIN}: does it use the argument epochs, and every batch?"
        )
    if len(numbers) < expected:
        raise Wrong(f"It yields {len(numbers)} of {expected} epochs: yield each of them, not only the last.")
    if trial.trained_by_first > NUM_TRAIN:
        raise Wrong("All epochs are trained before the first one is yielded: yield each as soon as it ends.")
    if numbers != list(range(1, expected + 1)):
        raise Wrong(f"The epochs have the numbers {numbers}: count from 1.")


def _check_file(trial: _Trial) -> None:
    checkpoint = trial.arguments["checkpoint"]
    if checkpoint.exists():
        return
    others = sorted(file.name for file in checkpoint.parent.rglob("*") if file.is_file())
    if others:
        raise Wrong(
            f"The trial is saved in {others[0]!r}, not in the file checkpoint. With names of your own two trials may "
            "share a file: pass checkpoint to train as it is."
        )
    raise Wrong("The trial is not saved, so it is lost when it is stopped: pass checkpoint=checkpoint to train.")


def _check_seeds(first: _Trial, second: _Trial, other_seed: _Trial) -> None:
    """The seed, and nothing else, decides the initial weights and the order of the images."""
    if not torch.equal(first.initial_weights, second.initial_weights):
        raise Wrong(
            "Two trials start from different weights, so you also compare chance: call torch.manual_seed(seed) before "
            "build_model()."
        )
    if torch.equal(first.initial_weights, other_seed.initial_weights):
        raise Wrong("Another seed results in the same initial weights: pass the argument seed to torch.manual_seed.")
    order = first.trained()
    if order[:NUM_TRAIN] == order[NUM_TRAIN:]:
        raise Wrong(
            "The training images come in the same order in every epoch: pass seed=seed to Batches, and in a loop of "
            "your own call set_epoch."
        )
    if order != second.trained()[: len(order)]:
        raise Wrong("Two trials see the training images in different orders: pass seed=seed to Batches.")
    if order == other_seed.trained():
        raise Wrong("Another seed results in the same order of the images: pass the argument seed to Batches.")


def _check_resuming(answer: Callable, complete: _Trial, checkpoint: Path) -> None:
    """Stop a trial after an epoch, start it again, and compare it with a complete one."""
    with _Trial(checkpoint).start(answer) as epochs:
        next(epochs)
    del epochs
    resumed = _Trial(checkpoint)
    with resumed.start(answer) as epochs:
        resumed.epochs += epochs
    again = "A trial that is stopped after epoch 1 and started again with the same checkpoint"
    numbers = [epoch.number for epoch in resumed.epochs]
    if len(resumed.trained()) == len(complete.trained()):
        raise Wrong(f"{again} repeats that epoch: pass checkpoint to train, and leave the file as train writes it.")
    if numbers != [1, 2]:
        raise Wrong(f"{again} yields the epochs {numbers}: yield all of them, first those in the file.")
    same_loss = _close(resumed.epochs[-1].val_loss, complete.epochs[-1].val_loss)
    if resumed.trained() != complete.trained()[NUM_TRAIN:] or not same_loss:
        raise Wrong(
            f"{again} ends differently from one that is not stopped: the weights, the optimizer's momentum and the "
            "order of the images must continue as they were. train does that."
        )
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
        resumed.arguments["build_model"]().load_state_dict(weights)
    except Exception:  # whatever loading another kind of file raises
        raise Wrong(
            'The file at checkpoint has no weights under "model", from which the lesson loads the best network: let '
            "train write it."
        ) from None


# The choice.


def package_pick_best(results: pd.DataFrame) -> tuple[float, int, float]:
    """The exercise's `pick_best`, for a notebook that continues although the student's is not right yet."""
    best = best_point(results[[*POINT, "epoch", "val_accuracy", "state"]])
    if best is None:
        raise ValueError("no trial completed, so there is no best point: try smaller learning rates")
    return tuple(best[name] for name in POINT)


def _trials(*trials: tuple) -> pd.DataFrame:
    """A table of trials: each a point, then per epoch the training, validation and test accuracy and diverged."""
    rows = [(*point, number, *epoch) for point, *epochs in trials for number, epoch in enumerate(epochs, start=1)]
    columns = [*POINT, "epoch", "train_accuracy", "val_accuracy", "test_accuracy", "diverged"]
    table = pd.DataFrame(rows, columns=columns)
    has_diverged = table.groupby(POINT)["diverged"].transform("any")
    return table.assign(state=has_diverged.map({True: "diverged", False: "completed"}))


NAN = float("nan")
TABLES = (
    # The best on validation, on training, on test, in an earlier epoch, and of those that diverged are all different.
    _trials(
        ((0.1, 16, 5e-4), (0.30, 0.71, 0.30, False), (0.10, 0.10, 0.10, True)),
        ((0.1, 32, 5e-4), (0.20, 0.21, 0.20, False), (0.10, 0.90, 0.10, True)),
        ((0.001, 16, 5e-4), (0.40, 0.41, 0.40, False), (0.60, 0.55, 0.54, False)),
        ((0.001, 32, 5e-4), (0.45, 0.66, 0.42, False), (0.70, 0.50, 0.52, False)),
        ((0.001, 64, 5e-4), (0.42, 0.40, 0.43, False), (0.90, 0.45, 0.44, False)),
        ((0.0001, 16, 5e-4), (0.20, 0.22, 0.30, False), (0.33, 0.35, 0.62, False)),
        ((0.0001, 32, 5e-4), (0.10, 0.11, 0.10, False), (0.12, 0.12, 0.12, False)),
    ),
    # Other decays, the best one neither first nor last, and a diverged trial without an accuracy.
    _trials(
        ((0.01, 32, 0.0), (0.50, 0.52, 0.50, False), (0.95, 0.60, 0.66, False)),
        ((0.01, 32, 0.05), (0.48, 0.50, 0.51, False), (0.70, 0.68, 0.61, False)),
        ((0.01, 32, 0.5), (0.30, 0.72, 0.30, False), (0.31, 0.33, 0.30, False)),
        ((1.0, 32, 0.05), (0.20, 0.80, 0.20, False), (NAN, NAN, NAN, True)),
    ),
)


def _choices(table: pd.DataFrame) -> dict[str, list[tuple]]:
    """The points that mistakes choose, by message."""
    finite, last = table[~table["diverged"]], table.groupby(POINT).tail(1)
    ended = last[~last["diverged"]]  # the rows to choose from
    never_diverged = table[~table.groupby(POINT)["diverged"].transform("any")]

    def best(column: str, *rows: pd.DataFrame) -> list[tuple]:
        return [tuple(one.loc[one[column].idxmax(), POINT]) for one in rows]

    return {
        "It chooses by the test accuracy. Then the test images are no longer unseen: what is left to report?": (
            best("test_accuracy", ended, table)
        ),
        "It chooses by the training accuracy, which a network can reach by memorising its images.": (
            best("train_accuracy", ended, table)
        ),
        "It takes the best epoch of any trial: a trial counts by its last epoch.": best("val_accuracy", never_diverged),
        "It considers a trial that diverged: see the column state.": best("val_accuracy", last, table),
        "It considers earlier epochs of a trial that diverged: the column diverged marks only the last row, but all of "
        "its rows must go.": best("val_accuracy", finite, finite.groupby(POINT).tail(1)),
        "It takes the smallest validation accuracy: take the largest.": [
            tuple(rows.loc[rows["val_accuracy"].idxmin(), POINT]) for rows in (ended, table)
        ],
        "It takes the first row of the table: do you sort it, and use the sorted one?": [tuple(table[POINT].iloc[0])],
        "It takes the last row of the table: do you sort it, and use the sorted one?": [tuple(table[POINT].iloc[-1])],
    }


@exercise
def pick_best(answer: Callable) -> None:
    """results, a row per trial and epoch -> the (lr, batch_size, weight_decay) to choose."""
    given = [_as_point(answer(table.copy()), table) for table in TABLES]
    if given == [package_pick_best(table) for table in TABLES]:
        return
    choices = [_choices(table) for table in TABLES]
    for message in choices[0]:
        if given in map(list, zip(*(one[message] for one in choices), strict=True)):
            raise Wrong(message)
    raise Wrong(
        "It misses the highest validation accuracy in the last epoch: print the last epoch's rows, and compare."
    )


def _as_point(given: object, table: pd.DataFrame) -> tuple[float, ...]:
    """What an answer returns for `table`, as a point of the table."""
    if isinstance(returned(given), Real):
        accuracies = table[["train_accuracy", "val_accuracy", "test_accuracy"]]
        what = "an accuracy" if accuracies.isin([float(given)]).any(axis=None) else "one number, such as a row's index"
        raise Wrong(f"It returns {what}: return the point, (lr, batch_size, weight_decay).")
    if isinstance(given, pd.DataFrame) or (isinstance(given, pd.Series) and len(given) > 3):
        raise Wrong("It returns rows of the table: return the three values (lr, batch_size, weight_decay).")
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3:
        raise Wrong("It must return three numbers: (lr, batch_size, weight_decay).")
    if not (table[POINT] == values).all(axis=1).any():
        raise Wrong(f"{values} is not a point of the table: the order is (lr, batch_size, weight_decay).")
    return values


# The conclusions, from the tables of the exercise: resnet18, 4,500 training images, 3 epochs.

STEPS = math.ceil(4500 / 16)  # per epoch
CONCLUSIONS = {"a": "learned worse", "b": 16, "c": 3 * STEPS, "d": "batch size 8", "e": "shrinks", "f": 2}
CONCLUSIONS |= {"g": "validation", "h": 1}
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
        math.ceil(4500 / 64) * 3: "That is batch size 64: see your answer to b.",
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
        0.004: "That is a share: how many of 500 images is it?",
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
        3: "That is once for each learning rate: after the first evaluation the images are no longer unseen.",
    },
}


@exercise
def conclusions(answer: dict) -> None:
    """A dict of question letter to answer; each answer follows from the tables in the exercise's text."""
    for letter, right in CONCLUSIONS.items():
        given = filled_in(answer, CONCLUSIONS)[letter]
        if isinstance(right, str):
            allowed = [right, *MISTAKES[letter]]
            if not isinstance(given, str) or given.strip().lower() not in allowed:
                raise Wrong(f"{letter}: choose one of {', '.join(map(repr, sorted(allowed)))}.")
            given = given.strip().lower()
        elif not isinstance(given, Real) or isinstance(given, bool):
            raise Wrong(f"{letter}: the answer is a number.")
        if given == right:
            continue
        same = math.isclose if isinstance(given, Real) else operator.eq
        reject(given, {f"{letter}: {message}": value for value, message in MISTAKES[letter].items()}, same)
        raise Wrong(f"{letter}: {given:g} does not follow from the tables: work it out from the numbers in them.")


def _close(given: object, expected: float) -> bool:
    return math.isclose(float(given), expected, rel_tol=1e-3, abs_tol=1e-7)


def _near(given: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(given, expected, rtol=1e-3, atol=1e-5)
