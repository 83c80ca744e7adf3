"""Checks of lesson 4, the hyper-parameter exercise."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from inspect import Parameter, signature, unwrap
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cnnlesson.checks import verdict
from cnnlesson.checks.verdict import Unanswered, Wrong, exercise, expect
from cnnlesson.data import Batches, ImageSet
from cnnlesson.runtime.device import find_device
from cnnlesson.training import Epoch, train

progress = partial(verdict.progress, __name__)

POINT = ["lr", "batch_size", "weight_decay"]


# The package's own answers, for a notebook that goes on while the student's are not right yet.


def package_run(names: dict, lr: float, batch_size: int, weight_decay: float, checkpoint: Path) -> Iterator[Epoch]:
    """The exercise's `run`, with the names of a notebook: `partial(package_run, globals())`."""
    torch.manual_seed(names["SEED"])
    model = names["build_model"]()
    size, val_set = names["IMAGE_SIZE"], names["val_set"]
    train_batches = Batches(names["train_set"], batch_size, image_size=size, seed=names["SEED"])
    val_batches = Batches(val_set, min(100, len(val_set)), image_size=size)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, names["EPOCHS"], checkpoint=checkpoint)


def package_pick_best(results: pd.DataFrame) -> tuple[float, int, float]:
    """The exercise's `pick_best`."""
    last = results.groupby(POINT).tail(1)
    completed = last[last["state"] == "completed"]
    return _point(completed.loc[completed["val_accuracy"].idxmax()])


# The two loops.


class _EverySecond(nn.Module):
    """What dropout does, without chance: in training every second input is zeroed and the others are doubled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2 * (torch.arange(x.shape[1], device=x.device) % 2)) if self.training else x


class _Watched:
    """A small network with batch norm and dropout, its batches, its optimizer, and what was done with them."""

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
        self.training = []  # a forward pass each: was the network in training mode?
        self.gradients = []  # a forward pass each: were gradients recorded?
        self.backwards = 0
        self.steps = []  # a step each: had the weights a gradient?
        self.model.register_forward_hook(self._forward)
        self.model[1].weight.register_hook(self._backward)
        self.optimizer.register_step_pre_hook(self._step)

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


def _loop(
    watched: _Watched,
    zero_each_batch: bool = True,
    loss_of: Callable = F.cross_entropy,
) -> list[tuple[float, float, int]]:
    """The trusted loop, or one with a mistake: the loss, the share of right answers and the size of each batch."""
    watched.model.train()
    seen = []
    for images, labels in watched.batches:
        logits = watched.model(images)
        loss = loss_of(logits, labels)
        if zero_each_batch:
            watched.optimizer.zero_grad()
        loss.backward()
        watched.optimizer.step()
        seen.append((loss.item(), (logits.argmax(1) == labels).float().mean().item(), len(labels)))
    return seen


@torch.no_grad()
def _evaluation(watched: _Watched, loss_of: Callable) -> list[tuple[float, float, int]]:
    """The trusted evaluation: the loss, the share of right answers and the size of each batch."""
    watched.model.eval()
    seen = []
    for images, labels in watched.batches:
        logits = watched.model(images)
        is_right = logits.argmax(1) == labels
        seen.append((loss_of(logits, labels).item(), is_right.float().mean().item(), len(labels)))
    return seen


def _softmax_first(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.softmax(1), labels)


TRAINING_MISTAKES = {
    "The gradients of all batches add up: optimizer.zero_grad() must clear them for each batch.": (
        {"zero_each_batch": False}
    ),
    "There is a softmax before F.cross_entropy, which contains one already: give it the logits.": (
        {"loss_of": _softmax_first}
    ),
    "The loss is summed over a batch, so a larger batch takes longer steps: cross_entropy's own mean is meant.": (
        {"loss_of": partial(F.cross_entropy, reduction="sum")}
    ),
    "The loss is not the cross-entropy of logits and labels: it is a mean squared error.": (
        {"loss_of": lambda logits, labels: F.mse_loss(logits, F.one_hot(labels, 3).float())}
    ),
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
        if len(theirs.training) < len(sizes):
            raise Wrong(
                f"Of {len(sizes)} batches the network sees {len(theirs.training)}: does a return stand inside the loop?"
            )
        if not any(theirs.training):
            raise Wrong(
                "The network is in evaluation mode while it is trained, so dropout is off and batch norm does not "
                "learn its statistics: model.train() is never called."
            )
        if not all(theirs.training):
            raise Wrong("The network is in evaluation mode for some batches: is model.eval() called in this loop?")
        if not theirs.steps:
            raise Wrong(
                "The given optimizer makes no step, so no weight changes: optimizer.step() is never called."
                if theirs.backwards
                else "No weight changes: loss.backward() and optimizer.step() are never called."
            )
        if theirs.backwards == 0:
            raise Wrong("The optimizer steps without a gradient: loss.backward() is never called.")
        if not any(theirs.steps):
            raise Wrong(
                "At every step the gradients are gone: zero_grad() stands between loss.backward() and optimizer.step()."
            )
        if len(theirs.steps) < len(sizes):
            raise Wrong(
                f"For {len(sizes)} batches there are {len(theirs.steps)} steps: each batch is a step of its own."
            )
        if not _near(theirs.weights(), ours.weights()):
            for message, options in TRAINING_MISTAKES.items():
                mistaken = _Watched(sizes, seed)
                _loop(mistaken, **options)
                if _near(theirs.weights(), mistaken.weights()):
                    raise Wrong(message)
            raise Wrong(
                "After the pass the weights differ from those that a plain loop gives: for each batch clear the "
                "gradients, run the network once, take the cross-entropy, go backward, and step, in an order that "
                "works."
            )
        _one_number("mean loss", loss)
        _check_loss(loss, seen)


@exercise
def student_evaluate(answer: Callable) -> None:
    """(model, batches) -> (mean loss, accuracy) over the images, both floats; the model stays as it is."""
    for seed, sizes in enumerate(SIZES):
        theirs = _Watched(sizes, seed)
        _loop(theirs)  # so that batch norm has statistics of its own
        theirs.optimizer.zero_grad()
        seen, with_softmax = _evaluation(theirs, F.cross_entropy), _evaluation(theirs, _softmax_first)
        theirs.training, theirs.gradients, theirs.backwards, theirs.steps = [], [], 0, []
        weights, statistics = theirs.weights(), theirs.statistics()
        theirs.model.train()  # as a training loop leaves it
        scores = _call(answer, theirs, theirs.model, theirs.batches)
        if theirs.steps or not _near(theirs.weights(), weights):
            raise Wrong("The weights have changed: an evaluation makes no step of an optimizer.")
        if theirs.backwards:
            raise Wrong("It calls backward(), but an evaluation needs no gradients.")
        if len(theirs.training) < len(sizes):
            raise Wrong(
                f"Of {len(sizes)} batches the network sees {len(theirs.training)}: does a return stand inside the loop?"
            )
        if any(theirs.training):
            raise Wrong(
                "The network is in training mode while it is judged, so dropout is on and batch norm uses the "
                "statistics of the batch: "
                + ("model.eval() is never called." if all(theirs.training) else "model.eval() is called too late.")
            )
        if not _near(theirs.statistics(), statistics):
            raise Wrong("Batch norm's running statistics have changed: is the network run in training mode too?")
        if any(theirs.gradients):
            raise Wrong(
                "Gradients are recorded during the evaluation, which costs memory and time: torch.no_grad() "
                "switches that off."
            )
        if isinstance(scores, Real | torch.Tensor) or not isinstance(scores, tuple | list) or len(scores) != 2:
            raise Wrong("It must return two numbers: return loss, accuracy")
        loss, accuracy = scores
        _one_number("loss", loss)
        _one_number("accuracy", accuracy)
        right_loss, right_accuracy = _over_images(seen)
        if _close(loss, right_accuracy) and _close(accuracy, right_loss):
            raise Wrong("The two are the wrong way round: the loss comes first, then the accuracy.")
        if _close(loss, _over_images(with_softmax)[0]):
            raise Wrong("There is a softmax before F.cross_entropy, which contains one already: give it the logits.")
        _check_loss(loss, seen)
        _check_accuracy(accuracy, seen)


def _call(answer: Callable, watched: _Watched, *arguments) -> object:
    """The answer's result; errors that say little to a beginner are put into words."""
    _, labels = watched.batches[0]
    try:
        return answer(*arguments)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        try:
            F.cross_entropy(labels, torch.zeros(len(labels), 3, device=labels.device))
        except (RuntimeError, ValueError, IndexError, TypeError) as swapped:
            if str(error) == str(swapped):
                raise Wrong(
                    "The arguments of cross_entropy are swapped: the logits come first, then the labels."
                ) from None
        if "modified by an inplace operation" in str(error):
            raise Wrong(
                "A step has changed the weights after the forward pass, and backward() needs them as they were then: "
                "optimizer.step() stands before loss.backward()."
            ) from None
        if "does not require grad" in str(error):
            raise Wrong(
                "backward() finds nothing to go back through: gradients are switched off (torch.no_grad), or the loss "
                "has lost its graph (detach, a new tensor) before."
            ) from None
        raise


def _one_number(name: str, value: object) -> None:
    if value is None:
        raise Wrong("It returns None: does the function end with a return?")
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise Wrong(
                f"The {name} is a tensor that keeps the graph of every batch in memory: .item() gives the number alone."
            )
        raise Wrong(f"The {name} is a tensor, but a float is asked for: .item() gives it.")
    if not isinstance(value, Real):
        raise Wrong(f"The {name} must be one float, not a {type(value).__name__}.")


def _over_images(seen: list[tuple[float, float, int]]) -> tuple[float, float]:
    """Mean loss and accuracy over all images of batches (loss, accuracy, size)."""
    num_images = sum(size for *_, size in seen)
    return tuple(sum(batch[place] * batch[2] for batch in seen) / num_images for place in (0, 1))


def _check_loss(loss: float, seen: list[tuple[float, float, int]]) -> None:
    right, accuracy = _over_images(seen)
    if _close(loss, right):
        return
    losses, sizes = [batch[0] for batch in seen], [batch[2] for batch in seen]
    mistakes = {
        "The loss is that of the last batch alone: the mean over all images is asked for.": losses[-1],
        "The loss is that of the first batch alone: the mean over all images is asked for.": losses[0],
        "The loss is the mean of the batches' means: the last batch is smaller, so each of its images counts for "
        "more than one of another batch. Weight each batch by its number of images.": sum(losses) / len(losses),
        "The losses of the batches are added up, but not averaged.": sum(losses),
        "The losses of all images are added up, but not averaged: divide by the number of images.": right * sum(sizes),
        "A batch's loss is a mean already. Divided by the number of images without having been multiplied by the "
        "batch's own, it is too small.": sum(losses) / sum(sizes),
        "The sum over all images is divided by the number of batches, not of images.": right * sum(sizes) / len(sizes),
        "That is the accuracy: the mean loss is asked for.": accuracy,
        "The sign of the loss is wrong: cross-entropy is not negative.": -right,
    }
    for message, value in mistakes.items():
        if _close(loss, value):
            raise Wrong(message)
    raise Wrong(
        f"The loss of {len(seen)} batches of {', '.join(map(str, sizes))} images comes out as {loss:.4g}, where a "
        f"plain mean over the images is another number: which losses are added, and what are they divided by?"
    )


def _check_accuracy(accuracy: float, seen: list[tuple[float, float, int]]) -> None:
    right = _over_images(seen)[1]
    if _close(accuracy, right):
        return
    shares, sizes = [batch[1] for batch in seen], [batch[2] for batch in seen]
    mistakes = {
        "The accuracy is in percent: a share between 0 and 1 is asked for.": 100 * right,
        "The accuracy is averaged over the batches: the last one is smaller, so each of its images counts for more. "
        "Count the right answers, and divide by the number of images.": sum(shares) / len(shares),
        "The accuracy is that of the last batch alone.": shares[-1],
        "That is the number of right answers: divide by the number of images.": right * sum(sizes),
        "The right answers are divided by the number of batches, not of images.": right * sum(sizes) / len(sizes),
        "That is the share of wrong answers.": 1 - right,
    }
    for message, value in mistakes.items():
        if _close(accuracy, value):
            raise Wrong(message)
    raise Wrong(
        f"The accuracy comes out as {accuracy:.4g}, which is not the share of right answers: the answer for an image "
        "is the class with the largest of its own logits (argmax over dim=1)."
    )


# A trial.

EPOCHS, IMAGE_SIZE = 2, 8
NUM_TRAIN, NUM_VAL = 20, 300


class _Pass(NamedTuple):
    """A batch that went through a network."""

    model: nn.Module
    is_training: bool
    of_validation: bool  # are images of val_set among them?
    of_neither: bool  # and images of neither set?
    pixels: int
    values: list[float]  # of each image; those of training are all different


class _Bench:
    """Small stand-ins for the names that `run` may use, and a record of what it does with them."""

    def __init__(self):
        # Every image has one grey all over, and so is known again at any size: training dark, validation light.
        dark, light = 5 * torch.arange(NUM_TRAIN), 156 + torch.arange(NUM_VAL) % 100
        dark, light = (grey.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 6, 6) for grey in (dark, light))
        classes = ("a", "b", "c")
        self.names = {
            "train_set": ImageSet(dark, torch.arange(NUM_TRAIN) % 3, classes),
            "val_set": ImageSet(light, torch.arange(NUM_VAL) % 3, classes),
            "build_model": self.build_model,
            "EPOCHS": EPOCHS,
            "IMAGE_SIZE": IMAGE_SIZE,
        }
        self.start()

    def start(self) -> None:
        """Forget what was recorded, for the next trial."""
        self.models = []
        self.first_weights = None
        self.passes: list[_Pass] = []
        self.steps = []  # (class of the optimizer, its first group's settings, the identities of its parameters)

    def build_model(self) -> nn.Module:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).to(find_device(None))
        if self.first_weights is None:
            self.first_weights = model[2].weight.detach().clone()
        model.register_forward_pre_hook(self._forward)
        self.models.append(model)
        return model

    def _forward(self, model: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        images = inputs[0].detach().float()  # (N, 3, S, S)
        values = images.mean(dim=(1, 2, 3))
        of_validation = bool((values > 0).any())
        of_neither = bool(images.std(dim=(2, 3)).max() > 1e-3)
        self.passes.append(_Pass(model, model.training, of_validation, of_neither, images.shape[-1], values.tolist()))

    def step(self, optimizer: torch.optim.Optimizer, *arguments) -> None:
        parameters = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
        self.steps.append((type(optimizer), settings, parameters))

    def trained(self) -> list[float]:
        """The mean values of the training images, in the order in which the network was trained on them."""
        return [value for one in self.passes if one.is_training and not one.of_validation for value in one.values]


@exercise
def run(answer: Callable) -> None:
    """run(lr, batch_size, weight_decay, checkpoint) trains a new network and yields its Epochs.

    It is tried with small stand-ins for the notebook's train_set, val_set, build_model, EPOCHS, IMAGE_SIZE and SEED, in
    an empty folder. A trial is also stopped after an epoch and started again.
    """
    names = getattr(unwrap(answer), "__globals__", None)
    if names is None:
        raise Wrong("run must be a function: def run(lr, batch_size, weight_decay, checkpoint)")
    _check_parameters(answer)
    bench = _Bench()
    trials = []  # of each: the first weights, the order of the images, and the epochs
    with TemporaryDirectory() as folder, chdir(folder):  # a file of a fixed name is not to stay with the notebook
        for chance, seed, point in ((1, 11, (0.05, 4, 0.01)), (2, 11, (0.01, 8, 0.002)), (3, 12, (0.05, 4, 0.01))):
            torch.manual_seed(chance)
            bench.start()
            checkpoint = Path(folder, f"trial-{chance}.pt")
            with _replaced(names, bench.names | {"SEED": seed}), _in_words(answer, bench, checkpoint):
                epochs = _try_run(answer, bench, point, checkpoint)
            trials.append((bench.first_weights, bench.trained(), epochs))
        (weights, order, epochs), (same_weights, same_order, _), (other_weights, other_order, _) = trials
        if not torch.equal(weights, same_weights):
            raise Wrong(
                "The networks of two trials start from different weights, so luck is compared too: call "
                "torch.manual_seed(SEED) before build_model()."
            )
        if torch.equal(weights, other_weights):
            raise Wrong("Another SEED gives the same first weights: is a fixed number written in its place?")
        if order[:NUM_TRAIN] == order[NUM_TRAIN:]:
            raise Wrong(
                "The training images come in the same order in every epoch: Batches shuffles where it has a seed."
            )
        if order != same_order:
            raise Wrong("Two trials see the training images in different orders: give Batches seed=SEED.")
        if order == other_order:
            raise Wrong("Another SEED gives the same order of the images: give Batches seed=SEED.")
        torch.manual_seed(4)
        checkpoint = Path(folder, "stopped.pt")
        with _replaced(names, bench.names | {"SEED": 11}), _in_words(answer, bench, checkpoint):
            _try_to_go_on(answer, bench, (0.05, 4, 0.01), checkpoint, order, epochs)


def _check_parameters(answer: Callable) -> None:
    """The search calls `run` by the names of its parameters."""
    parameters = signature(answer).parameters.values()
    given = [parameter.name for parameter in parameters]
    for name in (*POINT, "checkpoint"):
        if name not in given:
            raise Wrong(
                f"Its parameters are ({', '.join(given)}), and {name} is not among them. The search calls it by these "
                "names: def run(lr, batch_size, weight_decay, checkpoint)"
            )
    for parameter in parameters:
        if parameter.name not in (*POINT, "checkpoint") and parameter.default is Parameter.empty:
            raise Wrong(
                f"The search does not know its parameter {parameter.name}: def run(lr, batch_size, weight_decay, "
                "checkpoint)"
            )


@contextmanager
def _in_words(answer: Callable, bench: _Bench, checkpoint: Path) -> Iterator[None]:
    """Record the steps of optimizers, and put into words what an error of a trial says to a beginner in no way."""
    hook = register_optimizer_step_pre_hook(bench.step)
    try:
        yield
    except NotImplementedError:
        raise
    except AttributeError as error:
        if isinstance(error.obj, Path | str) and error.name == "step":
            raise Wrong("train takes checkpoint for its scheduler: give the argument by its name.") from None
        raise
    except FileNotFoundError as error:
        if str(error.filename) == str(checkpoint):
            raise Wrong(
                "A new trial has no file yet at the path checkpoint, but it is opened: hand the path on to train, "
                "which reads the file where there is one."
            ) from None
        raise
    except (RuntimeError, ValueError) as error:
        if "is damaged" in str(error):
            raise Wrong(
                "Something else is in the file at the path checkpoint when train reads it: leave opening, writing and "
                "reading that file to train."
            ) from None
        if not bench.models and "build_model" not in unwrap(answer).__code__.co_names:
            raise Wrong(SHARED) from None  # the other network cannot take the stand-ins' images
        raise
    finally:
        hook.remove()


SHARED = (
    "build_model() is not called in this trial, so trials share a network, and each goes on from where the one before "
    "has ended: build a new one inside run."
)


def _start(answer: Callable, point: tuple[float, int, float], checkpoint: Path) -> object:
    return answer(**dict(zip(POINT, point, strict=True)), checkpoint=checkpoint)


def _try_run(answer: Callable, bench: _Bench, point: tuple[float, int, float], checkpoint: Path) -> list[Epoch]:
    """Run a trial to its end, and return its epochs."""
    lr, batch_size, weight_decay = point
    epochs = _start(answer, point, checkpoint)
    if epochs is None:
        raise Wrong("It returns None: yield each Epoch, as train does.")
    if isinstance(epochs, Epoch):
        raise Wrong("It returns one Epoch: yield each of them, as soon as it ends.")
    if not isinstance(epochs, Iterator):
        raise Wrong(f"It returns a {type(epochs).__name__}: yield each Epoch as soon as it ends.")
    collected, trained_at_first = [], 0
    for number, epoch in enumerate(epochs, start=1):
        if not isinstance(epoch, Epoch):
            what = "a list of them at once" if isinstance(epoch, list | tuple) else f"a {type(epoch).__name__}"
            raise Wrong(f"It must yield Epochs one by one, but yields {what}.")
        collected.append(epoch)
        if number == 1:
            trained_at_first = len(bench.trained())

    if not bench.models:
        raise Wrong(SHARED)
    if not collected:
        raise Wrong("It yields nothing.")
    training = [one for one in bench.passes if one.is_training]
    judging = [one for one in bench.passes if not one.is_training]
    if any(one.of_neither for one in bench.passes):
        raise Wrong(
            "The network gets images of neither train_set nor val_set: are the batches some that were made before, "
            "outside of run?"
        )
    if any(one.of_validation for one in training):
        raise Wrong("The network is trained on validation images: the first batches that train gets are learned from.")
    if not training:
        raise Wrong(
            "The network that build_model() made is never trained: is it another one that train gets, or is there an "
            "old file that it goes on from?"
        )
    _check_optimizer(bench, lr, weight_decay)
    largest = max(len(one.values) for one in training)
    if largest != batch_size:
        raise Wrong(f"Called with batch_size={batch_size} it trains on batches of {largest}: batch_size is not used.")
    if not any(one.of_validation for one in judging):
        raise Wrong(
            "The validation figures come from the training images: make batches of val_set."
            if judging
            else "The network is never judged on validation images in evaluation mode."
        )
    if any(one.pixels != IMAGE_SIZE for one in bench.passes):
        raise Wrong("The images reach the network without IMAGE_SIZE pixels: give image_size=IMAGE_SIZE to Batches.")
    if len(bench.trained()) != EPOCHS * NUM_TRAIN:
        raise Wrong(
            f"With EPOCHS = {EPOCHS} and {NUM_TRAIN} training images, {len(bench.trained())} images were trained on: "
            "is EPOCHS used, and every batch?"
        )
    if len(collected) < EPOCHS:
        raise Wrong(f"Of {EPOCHS} epochs it yields {len(collected)}: yield each of them, not the last alone.")
    if trained_at_first > NUM_TRAIN:
        raise Wrong("All epochs are trained before the first is yielded: yield each as soon as it ends.")
    if [epoch.number for epoch in collected] != list(range(1, EPOCHS + 1)):
        raise Wrong(f"The epochs' numbers are {[epoch.number for epoch in collected]}: they count from 1.")
    if not checkpoint.exists():
        others = sorted(file.name for file in checkpoint.parent.rglob("*") if file.is_file())
        if others:
            raise Wrong(
                f"The state of the trial is kept in {others[0]!r}, not in the file that checkpoint names. A name of "
                "your own is soon the same for two trials: hand checkpoint on to train as it is."
            )
        raise Wrong(
            "Nothing is kept in the file that checkpoint names, so a trial that is stopped is lost: hand checkpoint on "
            "to train."
        )
    return collected


def _try_to_go_on(
    answer: Callable,
    bench: _Bench,
    point: tuple[float, int, float],
    checkpoint: Path,
    order: list[float],
    epochs: list[Epoch],
) -> None:
    """Stop a trial after an epoch, start it again, and compare it with one that ran through: its images and epochs."""
    next(_start(answer, point, checkpoint))
    bench.start()
    collected = list(_start(answer, point, checkpoint))
    if len(bench.trained()) == EPOCHS * NUM_TRAIN:
        raise Wrong(
            "A trial that was stopped after an epoch, and is started again with the same checkpoint, trains that epoch "
            "again: hand checkpoint on to train, and leave the file as train has written it."
        )
    if [epoch.number for epoch in collected] != list(range(1, EPOCHS + 1)):
        raise Wrong(
            "A trial that was stopped after epoch 1, and is started again with the same checkpoint, yields the epochs "
            f"{[epoch.number for epoch in collected]}: all are asked for, first those that were made before."
        )
    if bench.trained() != order[NUM_TRAIN:] or not _close(collected[-1].val_loss, epochs[-1].val_loss):
        raise Wrong(
            "A trial that is stopped and started again ends otherwise than one that runs through: the weights, the "
            "optimizer's momentum and the order of the images must go on as they were, which train sees to."
        )


def _check_optimizer(bench: _Bench, lr: float, weight_decay: float) -> None:
    if not bench.steps:
        raise Wrong("No optimizer makes a step: does train get one?")
    kind, settings, parameters = bench.steps[0]
    own = {id(parameter) for one in bench.passes if one.is_training for parameter in one.model.parameters()}
    if not parameters & own:
        raise Wrong(
            "The optimizer holds the weights of another network: make it inside run, from the new model.parameters()."
        )
    if own - parameters:
        raise Wrong("The optimizer holds a part of the weights only: give it model.parameters().")
    if kind is not torch.optim.SGD:
        raise Wrong(f"The optimizer is {kind.__name__}: the text asks for SGD with momentum.")
    if not _close(settings["lr"], lr):
        raise Wrong(f"Called with lr={lr:g} it trains with a learning rate of {settings['lr']:g}: lr is not used.")
    if settings["momentum"] == 0:
        raise Wrong("The optimizer has no momentum: the text asks for 0.9.")
    if not _close(settings["momentum"], 0.9):
        raise Wrong(f"The momentum is {settings['momentum']:g}: the text asks for 0.9.")
    if settings["weight_decay"] == 0:
        raise Wrong(f"Called with weight_decay={weight_decay:g} it trains without: the optimizer must get it.")
    if not _close(settings["weight_decay"], weight_decay):
        raise Wrong(
            f"Called with weight_decay={weight_decay:g} it trains with {settings['weight_decay']:g}: weight_decay is "
            "not used."
        )


@contextmanager
def _replaced(names: dict, others: dict) -> Iterator[None]:
    """Put `others` into a module's names for a while; then all is as it was."""
    missing = object()
    before = {name: names.get(name, missing) for name in others}
    names.update(others)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                names.pop(name, None)
            else:
                names[name] = value


# The choice.


def _trials(*trials: tuple) -> pd.DataFrame:
    """A table of (point, then a tuple an epoch: training, validation and test accuracy, diverged)."""
    rows = [(*point, number, *epoch) for point, *epochs in trials for number, epoch in enumerate(epochs, start=1)]
    columns = [*POINT, "epoch", "train_accuracy", "val_accuracy", "test_accuracy", "diverged"]
    table = pd.DataFrame(rows, columns=columns)
    has_diverged = table.groupby(POINT)["diverged"].transform("any")
    return table.assign(state=has_diverged.map({True: "diverged", False: "completed"}))


NOT_A_NUMBER = float("nan")
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
        ((1.0, 32, 0.05), (0.20, 0.80, 0.20, False), (NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, True)),
    ),
)


@exercise
def pick_best(answer: Callable) -> None:
    """results, a row a trial and epoch -> the (lr, batch_size, weight_decay) to choose."""

    def copied(results: pd.DataFrame) -> object:
        return answer(results.copy())

    for results in TABLES:
        given = copied(results)
        if given is None:
            raise Wrong("It returns None: does the function end with a return?")
        if isinstance(given, Real):
            accuracies = results[["train_accuracy", "val_accuracy", "test_accuracy"]]
            if accuracies.isin([float(given)]).any(axis=None):
                raise Wrong("It returns an accuracy: return the point that has it, (lr, batch_size, weight_decay).")
            raise Wrong("It returns one number, such as a row's index: return (lr, batch_size, weight_decay).")
        if isinstance(given, pd.DataFrame) or (isinstance(given, pd.Series) and len(given) > 3):
            raise Wrong("It returns rows of the table: return the three values (lr, batch_size, weight_decay).")
        try:
            values = [float(value) for value in given]
        except (TypeError, ValueError):
            values = []
        if len(values) != 3:
            raise Wrong("It must return three numbers: (lr, batch_size, weight_decay).")
        if not (results[POINT] == values).all(axis=1).any():
            raise Wrong(f"{tuple(values)} is no point of the table: the order is (lr, batch_size, weight_decay).")

    def largest(column: str, rows: Callable, sign: int = 1) -> Callable:
        def choose(results: pd.DataFrame) -> tuple:
            rows_in_play = rows(results)
            return _point(rows_in_play.loc[(sign * rows_in_play[column]).idxmax()])

        return choose

    def all_rows(results: pd.DataFrame) -> pd.DataFrame:
        return results

    def finite_rows(results: pd.DataFrame) -> pd.DataFrame:
        return results[~results["diverged"]]

    def last_rows(results: pd.DataFrame) -> pd.DataFrame:
        return results.groupby(POINT).tail(1)

    def last_finite(results: pd.DataFrame) -> pd.DataFrame:
        return finite_rows(last_rows(results))

    def last_of_finite(results: pd.DataFrame) -> pd.DataFrame:
        return last_rows(finite_rows(results))

    def whole_trials(results: pd.DataFrame) -> pd.DataFrame:
        return results[~results.groupby(POINT)["diverged"].transform("any")]

    earlier = "It takes the best epoch of any trial: what counts is what a trial ends with, its last epoch."
    still_in = "A trial that diverged is still among them: the column state says which."
    forgotten = (
        "A trial that diverged is still among them: the column diverged marks only its last row, and its earlier "
        "epochs must go too."
    )
    on_test = "It chooses on the test accuracy. Then the test images are not fresh any more: what is left to report?"
    mistakes = {
        on_test: largest("test_accuracy", last_finite),
        on_test + " And earlier epochs are among them.": largest("test_accuracy", all_rows),
        "It chooses on the training accuracy, which a network can reach by heart.": largest(
            "train_accuracy", last_finite
        ),
        "It chooses on the training accuracy, over all epochs.": largest("train_accuracy", all_rows),
        earlier: largest("val_accuracy", whole_trials),
        still_in: largest("val_accuracy", last_rows),
        still_in + " And earlier epochs are among them too.": largest("val_accuracy", all_rows),
        forgotten: largest("val_accuracy", last_of_finite),
        forgotten + " So does every best epoch that is not a last one.": largest("val_accuracy", finite_rows),
        "It takes the smallest validation accuracy: the largest is asked for.": largest(
            "val_accuracy", last_finite, sign=-1
        ),
        "It takes the smallest validation accuracy of all rows: the largest of the last epochs is asked for.": (
            largest("val_accuracy", all_rows, sign=-1)
        ),
        "It takes the first row of the table: is the table sorted, and the result of sorting kept?": (
            lambda results: _point(results.iloc[0])
        ),
        "It takes the last row of the table: is the table sorted, and the result of sorting kept?": (
            lambda results: _point(results.iloc[-1])
        ),
        "It takes another point than the one with the highest validation accuracy in the last epoch: print the "
        "last epoch's rows, and look.": copied,
    }
    expect(copied, [(results,) for results in TABLES], package_pick_best, mistakes, same=_same_point)


def _point(row: pd.Series) -> tuple[float, int, float]:
    return float(row["lr"]), int(row["batch_size"]), float(row["weight_decay"])


def _same_point(given: Sequence, expected: tuple) -> bool:
    return tuple(float(value) for value in given) == tuple(float(value) for value in expected)


# The conclusions, from the table of the exercise: resnet18, 4,500 training images, 3 epochs (see the README).

QUESTIONS = {
    "a": (
        "learned worse",
        {
            "diverged": "At 0.1 no trial diverged: each has an accuracy. Compare its row with the others.",
            "guessed": "There are ten classes, so guessing gives 10 %: is the row of 0.1 at that?",
            "learned best": "Compare the row of 0.1 with the row of 0.001.",
        },
    ),
    "b": (
        16,
        {
            32: "An epoch has as many steps as batches. Do fewer images a batch make more batches, or fewer?",
            64: "An epoch has as many steps as batches. Do more images a batch make more batches, or fewer?",
        },
    ),
    "c": (
        math.ceil(4500 / 16) * 3,
        {
            math.ceil(4500 / 16): "That is one epoch: the trial has three.",
            4500 // 16 * 3: "The last batch is smaller than the others, but it is a step too: round up in each epoch.",
            math.ceil(4500 * 3 / 16): "The epochs do not share a batch: round up in each epoch, then multiply.",
            4500 / 16 * 3: "A number of steps is whole: what becomes of the images that do not fill a batch?",
            math.ceil(5000 / 16) * 3: "500 of the 5,000 images are for validation: no step is made with them.",
            4500 * 3: "That counts images: a step takes a whole batch of them.",
            math.ceil(4500 / 64) * 3: "That is batch size 64: look at the answer to b.",
        },
    ),
    "d": (
        "batch size 8",
        {
            "batch size 128": "From 64 to 16 the accuracy rises: which way does the table point?",
            "learning rate 1": "From 0.001 to 0.1 the accuracy falls: would a still higher rate help?",
            "nothing": "The best cell lies on an edge of the table: nobody knows yet what lies beyond.",
        },
    ),
    "e": (
        "shrinks",
        {
            "grows": "Work out training minus validation for a decay of 0 and for 0.05: which is smaller?",
            "stays": "Work out training minus validation for a decay of 0 and for 0.05: they are not alike.",
        },
    ),
    "f": (
        2,
        {
            0.4: "That is in percentage points: how many images of 500 are 0.4 %?",
            200: "That is 0.4 of 500, but the difference is 0.4 %.",
            0.004: "That is a share: of 500 images, how many is it?",
            18: "4,500 images are for training: the validation accuracy is that of 500.",
            20: "5,000 images are all there are: the validation accuracy is that of 500.",
            34: "That is the difference between decays 0 and 0.05: 0 and 0.0005 are asked for.",
        },
    ),
    "g": (
        "validation",
        {
            "training": "A network can learn its training images by heart: their accuracy says little about others.",
            "test": "What a choice was made on is no fresh look any more. The test images are for the report.",
        },
    ),
    "h": (
        1,
        {
            0: "Then the report would have the accuracy that the choice was made on, which flatters the chosen point.",
            9: "That is once for each point of the grid: then the choice can be made on it, even without meaning to.",
            3: "That is once for each learning rate: after the first look the images are not fresh any more.",
        },
    ),
}


@exercise
def conclusions(answer: dict) -> None:
    """A dict of question letter to answer; each answer follows from the table in the exercise's text."""
    if not isinstance(answer, dict) or set(answer) != set(QUESTIONS):
        raise Wrong(f"It must be a dict with the keys {', '.join(map(repr, QUESTIONS))}.")
    missing = [letter for letter, value in answer.items() if value is None or value is ...]
    if missing:
        raise Unanswered(f"Not answered: {', '.join(missing)}.")
    for letter, (right, mistakes) in QUESTIONS.items():
        given = answer[letter]
        if isinstance(right, str):
            allowed = [right, *mistakes]
            if not isinstance(given, str) or given.strip().lower() not in allowed:
                raise Wrong(f"{letter}: choose one of {', '.join(map(repr, sorted(allowed)))}.")
            given = given.strip().lower()
        elif not isinstance(given, Real) or isinstance(given, bool):
            raise Wrong(f"{letter}: the answer is a number.")
        if given == right:
            continue
        for value, message in mistakes.items():
            if given == value or (isinstance(value, float) and math.isclose(given, value)):
                raise Wrong(f"{letter}: {message}")
        raise Wrong(f"{letter}: {given:g} does not follow from the table: work it out from the numbers above it.")


def _close(given: object, expected: float) -> bool:
    return math.isclose(float(given), expected, rel_tol=1e-3, abs_tol=1e-7)


def _near(given: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(given, expected, rtol=1e-3, atol=1e-5)
