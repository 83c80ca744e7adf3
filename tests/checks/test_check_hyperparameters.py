"""Answers to lesson 4 as students write them."""

import math
from dataclasses import asdict
from functools import partial
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checks import hyperparameters as check
from cnnlesson.data import Batches, ImageSet
from cnnlesson.experiments.trial import run as package_run
from cnnlesson.search.trial import epochs_of
from cnnlesson.training import Epoch, evaluate, train, train_one_epoch

POINT = ["lr", "batch_size", "weight_decay"]


def training(
    mode="train",
    zero="before",
    zero_once=False,
    backward=True,
    step=True,
    loss_of=F.cross_entropy,
    average=None,
    take=lambda loss: loss.item(),
):
    """A student's training loop; the options make mistakes."""

    def answer(model, batches, optimizer):
        if mode is not None:
            getattr(model, mode)()
        losses, sizes = [], []
        if zero_once:
            optimizer.zero_grad()
        for images, labels in batches:
            if zero == "before":
                optimizer.zero_grad()
            logits = model(images)
            loss = loss_of(logits, labels)
            if step == "first":
                optimizer.step()
                optimizer.zero_grad()
            if backward:
                loss.backward()
            if zero == "between":
                optimizer.zero_grad()
            if step is True:
                optimizer.step()
            losses.append(take(loss))
            sizes.append(len(labels))
        if step == "last":
            optimizer.step()
        if average is not None:
            return average(losses, sizes)
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

    return answer


def training_with_a_criterion(model, batches, optimizer):
    criterion = nn.CrossEntropyLoss(reduction="none")
    losses = []
    for images, labels in batches:
        model.train()
        each = criterion(model(images), labels)
        each.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses += each.tolist()
    return sum(losses) / len(losses)


def training_that_returns_early(model, batches, optimizer):
    model.train()
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()


def training_in_another_network(model, batches, optimizer):
    other = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return training()(model, batches, other)


def evaluating(
    mode="eval",
    grad=False,
    loss_of=F.cross_entropy,
    average=None,
    share=None,
    dim=1,
    result=lambda loss, accuracy: (loss, accuracy),
    train_too=False,
    backward=False,
    late=False,
):
    """A student's evaluation; the options make mistakes."""

    def answer(model, batches):
        if mode is not None and not late:
            getattr(model, mode)()
        losses, rights, sizes = [], [], []
        with torch.set_grad_enabled(grad or train_too or backward):
            for images, labels in batches:
                logits = model(images)
                loss = loss_of(logits, labels)
                if train_too or backward:
                    loss.backward()
                if train_too:
                    torch.optim.SGD(model.parameters(), lr=0.1).step()
                if late:
                    model.eval()
                losses.append(loss.item())
                guesses = logits.argmax(dim)[: len(labels)]
                rights.append((guesses == labels[: len(guesses)]).sum().item())
                sizes.append(len(labels))
        pairs = zip(losses, sizes, strict=True)
        loss = average(losses, sizes) if average else sum(loss * size for loss, size in pairs) / sum(sizes)
        accuracy = share(rights, sizes) if share else sum(rights) / sum(sizes)
        return result(loss, accuracy)

    return answer


@torch.inference_mode()
def evaluating_all_images_together(model, batches):
    model.train(False)
    logits, labels = zip(*[(model(images), labels) for images, labels in batches], strict=True)
    logits, labels = torch.cat(logits), torch.cat(labels)
    return float(F.cross_entropy(logits, labels)), float((logits.max(1).indices == labels).float().mean())


def mean_of_means(values, sizes):
    return sum(values) / len(values)


def mean_of_shares(rights, sizes):
    return sum(right / size for right, size in zip(rights, sizes, strict=True)) / len(sizes)


def squared_error(logits, labels):
    return F.mse_loss(logits, F.one_hot(labels, 3).float())


def of_images(values, sizes):
    return sum(value * size for value, size in zip(values, sizes, strict=True))


# What a notebook may define outside `run`.
EPOCHS, SEED, IMAGE_SIZES = 4, 5, {"AlexNet": 16}
notebook_set = ImageSet(torch.randint(256, (24, 3, 6, 6), dtype=torch.uint8), torch.arange(24) % 3, ("a", "b", "c"))


def build_network():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))


shared = build_network()

CORRECT = {
    "set_seed": lambda given: torch.manual_seed(given.seed),
    "model": lambda given: given.build_model(),
    "train_on": lambda given: given.train_set,
    "evaluate_on": lambda given: given.val_set,
    "batch_size": lambda given: given.batch_size,
    "val_batch_size": lambda given: min(256, len(given.val_set)),
    "order": lambda given: given.seed,
    "pixels": lambda given: given.image_size,
    "val_pixels": lambda given: given.image_size,
    "optimizer": lambda weights, given: torch.optim.SGD(
        weights, lr=given.lr, momentum=0.9, weight_decay=given.weight_decay
    ),
    "weights": lambda model: model.parameters(),
    "epochs": lambda given: given.epochs,
    "before": lambda checkpoint: None,
    "keep": lambda checkpoint: {"checkpoint": checkpoint},
    "result": lambda epochs: epochs,
}


def trial(**mistakes):
    """A student's trial; each option replaces a part of the correct one."""
    use = SimpleNamespace(**CORRECT | mistakes)

    def answer(lr, batch_size, weight_decay, train_set, val_set, build_model, image_size, epochs, seed, checkpoint):
        given = SimpleNamespace(
            **{"lr": lr, "batch_size": batch_size, "weight_decay": weight_decay, "image_size": image_size},
            **{"train_set": train_set, "val_set": val_set, "build_model": build_model, "epochs": epochs, "seed": seed},
        )
        use.set_seed(given)
        network = use.model(given)
        train_batches = Batches(use.train_on(given), use.batch_size(given), use.pixels(given), seed=use.order(given))
        val_batches = Batches(use.evaluate_on(given), use.val_batch_size(given), use.val_pixels(given))
        optimizer = use.optimizer(use.weights(network), given)
        use.before(checkpoint)
        return use.result(
            train(network, train_batches, val_batches, optimizer, use.epochs(given), **use.keep(checkpoint))
        )

    return answer


def as_run(answer):
    """An answer that is written with **given, for brevity here, but has the parameters of `run`."""
    answer.__signature__ = signature(trial())
    return answer


def trial_with_a_loop(parts=("model", "optimizer", "order"), all_epochs=True, set_epoch=True, saved_as="model"):
    """A trial that saves its state without the package, or only a part of it."""

    def answer(lr, batch_size, weight_decay, train_set, val_set, build_model, image_size, epochs, seed, checkpoint):
        batches = Batches(train_set, batch_size=batch_size, image_size=image_size, seed=seed)
        torch.random.manual_seed(seed)
        network = build_model()
        sgd = torch.optim.SGD(network.parameters(), lr, 0.9, 0, weight_decay)
        val_batches = Batches(val_set, batch_size=50, image_size=image_size)
        history = []
        if checkpoint.exists():
            state = torch.load(checkpoint)
            history = [Epoch(**epoch) for epoch in state["history"]]
            if "model" in parts:
                network.load_state_dict(state[saved_as])
            if "optimizer" in parts:
                sgd.load_state_dict(state["optimizer"])
        if all_epochs:
            yield from history
        first_pass = 0 if "order" in parts else len(history)
        for number in range(len(history) + 1, epochs + 1):
            if set_epoch:
                batches.set_epoch(number - 1 - first_pass)
            training, validation = train_one_epoch(network, batches, sgd), evaluate(network, val_batches)
            figures = (*training[:2], *validation[:2], lr, 1, 1)
            history.append(Epoch(number, epochs, *figures, diverged=math.isnan(validation.loss)))
            state = {"history": list(map(asdict, history)), "optimizer": sgd.state_dict()}
            torch.save(state | {saved_as: network.state_dict()}, checkpoint)
            yield history[-1]

    return answer


def sgd_with(**options):
    return lambda weights, given: torch.optim.SGD(
        weights, lr=given.lr, weight_decay=given.weight_decay, **{"momentum": 0.9} | options
    )


@as_run
def trial_with_flips(**given):
    yield from package_run(**given, augment=True)


@as_run
def trial_with_a_schedule(lr, batch_size, weight_decay, train_set, val_set, build_model, **given):
    torch.manual_seed(given["seed"])
    network = build_model()
    batches = Batches(train_set, batch_size, given["image_size"], seed=given["seed"])
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    val_batches = Batches(val_set, 300, given["image_size"])
    yield from train(network, batches, val_batches, optimizer, given["epochs"], scheduler, given["checkpoint"])


def trial_with_the_rest_in_a_dict(lr, batch_size, weight_decay, checkpoint, **others):
    yield from package_run(lr, batch_size, weight_decay, checkpoint=checkpoint, **others)


def trial_with_all_in_a_dict(**given):
    yield from package_run(**given)


def trial_with_keywords_only(
    *, checkpoint, seed, epochs, image_size, build_model, val_set, train_set, weight_decay, batch_size, lr, note=""
):
    point = {"lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    images = {"train_set": train_set, "val_set": val_set, "image_size": image_size}
    return trial()(**point, **images, build_model=build_model, epochs=epochs, seed=seed, checkpoint=checkpoint)


class TrialObject:
    def __call__(
        self, lr, batch_size, weight_decay, train_set, val_set, build_model, image_size, epochs, seed, checkpoint
    ):
        images = {"train_set": train_set, "val_set": val_set, "image_size": image_size}
        others = {"build_model": build_model, "epochs": epochs, "seed": seed, "checkpoint": checkpoint}
        yield from trial()(lr=lr, batch_size=batch_size, weight_decay=weight_decay, **images, **others)


def trial_with_a_momentum(momentum, checkpoint, **others):
    yield from trial(
        optimizer=lambda weights, given: torch.optim.SGD(weights, given.lr, momentum, 0, given.weight_decay)
    )(checkpoint=checkpoint, **others)


@as_run
def trial_that_yields_the_last(**given):
    *_, last = trial()(**given)
    yield last


@as_run
def trial_that_yields_a_list(**given):
    yield list(trial()(**given))


@as_run
def trial_that_yields_at_the_end(**given):
    yield from list(trial()(**given))


@as_run
def trial_that_yields_accuracies(**given):
    for epoch in trial()(**given):
        yield epoch.val_accuracy


@as_run
def trial_that_yields_nothing(**given):
    for _ in trial()(**given):
        pass
    yield from ()


def trial_in_the_same_network():
    kept = []

    @as_run
    def run(**given):
        torch.manual_seed(given["seed"])
        if not kept:
            kept.append(given["build_model"]())
        yield from trial(model=lambda given: kept[0])(**given)

    return run


@as_run
def trial_of_two_networks(**given):
    torch.manual_seed(given["seed"])
    other = given["build_model"]()
    yield from trial(weights=lambda model: other.parameters())(**given)


@as_run
def trial_of_another_network(**given):
    given["build_model"]()
    yield from trial(model=lambda given: shared)(**given)


class OnlyLargeImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        raise ValueError("AlexNet takes images of shape (N, 3, 227, 227)")


def trial_without(name):
    """A trial that lacks the parameter `name`."""
    names = {}
    parameters = ", ".join(argument for argument in check.ARGUMENTS if argument != name)
    exec(f"def run({parameters}):\n    yield", names)
    return names["run"]


def trial_of_the_notebooks_images(lr, batch_size, weight_decay, build_model, image_size, epochs, seed, checkpoint, **_):
    train_set = val_set = notebook_set
    yield from package_run(
        lr, batch_size, weight_decay, train_set, val_set, build_model, image_size, epochs, seed, checkpoint
    )


def trial_with_short_names(lr, bs, wd, train_set, val_set, build_model, image_size, epochs, seed, checkpoint):
    yield from package_run(lr, bs, wd, train_set, val_set, build_model, image_size, epochs, seed, checkpoint)


@as_run
def trial_that_saves_only_the_weights(**given):
    networks = []

    def model(given):
        networks.append(given.build_model())
        return networks[0]

    for epoch in trial(model=model, keep=lambda checkpoint: {})(**given):
        torch.save(networks[0].state_dict(), given["checkpoint"])
        yield epoch


@as_run
def trial_that_opens_the_file(**given):
    with open(given["checkpoint"], "wb") as file:
        yield from trial(keep=lambda checkpoint: {"checkpoint": file})(**given)


@as_run
def trial_that_returns_if_there_is_a_file(**given):
    if not given["checkpoint"].exists():
        yield from trial()(**given)


def last(results):
    return results.groupby(POINT).tail(1)


def point(row):
    return row["lr"], row["batch_size"], row["weight_decay"]


def best_by_sorting(results):
    is_last = results.epoch == results.epoch.max()
    table = results[is_last & (results.state == "completed")].sort_values("val_accuracy")
    return tuple(table.iloc[-1][POINT])


def best_of_completed(results):
    completed = results.query("state == 'completed'").groupby(POINT, as_index=False).last()
    return completed.nlargest(1, "val_accuracy")[POINT].iloc[0].tolist()


def best_by_a_loop(results):
    best, best_accuracy = None, -1
    for (lr, batch_size, decay), rows in results.groupby(POINT):
        if set(rows["state"]) == {"completed"} and rows["val_accuracy"].iloc[-1] > best_accuracy:
            best, best_accuracy = [lr, batch_size, decay], rows["val_accuracy"].iloc[-1]
    return best


def answers(**changed):
    right = {"a": "learned worse", "b": 16, "c": 846, "d": "batch size 8", "e": "shrinks", "f": 2, "g": "validation"}
    return right | {"h": 1} | changed


RIGHT = {
    "student_train_one_epoch": [
        training(),
        training_with_a_criterion,
        training(loss_of=lambda logits, labels: F.nll_loss(logits.log_softmax(1), labels)),
    ],
    "student_evaluate": [
        evaluating(),
        evaluating_all_images_together,
        evaluating(result=lambda loss, accuracy: [loss, accuracy]),
    ],
    "run": [
        trial(),
        trial_with_all_in_a_dict,
        trial(keep=lambda checkpoint: {"checkpoint": str(checkpoint)}),
        trial(val_batch_size=lambda given: 7),
        trial(val_batch_size=lambda given: len(given.val_set)),
        trial_with_a_loop(),
        trial_with_the_rest_in_a_dict,
        trial_with_keywords_only,
        TrialObject(),
        partial(trial_with_a_momentum, momentum=0.9),
        partial(trial_with_all_in_a_dict, augment=False, device=None),
    ],
    "pick_best": [
        best_by_sorting,
        best_by_a_loop,
        best_of_completed,
        lambda results: np.array(best_by_a_loop(results)),
    ],
    "conclusions": [answers(), answers(a=" Learned worse", b=16.0, g="Validation"), answers(d="learning rate 0.01")],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "student_train_one_epoch": [
        (training(mode=None), "model.train() is never called"),
        (training(mode="eval"), "model.train() is never called"),
        (training(zero=None), "add up"),
        (training(zero=None, zero_once=True), "add up"),
        (training(zero="between"), "is between"),
        (training(step=False), "optimizer.step() is never called"),
        (training_in_another_network, "optimizer.step() is never called"),
        (training(backward=False), "loss.backward() is never called"),
        (training(backward=False, step=False), "loss.backward() and optimizer.step() are never called"),
        (training(step="last"), "call optimizer.step() for each of 3 batches"),
        (training(zero=None, step="first"), "is called before loss.backward()"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits.softmax(1), labels)), "softmax"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(labels, logits)), "swapped"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")), "summed"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits.detach(), labels)), "gradients are switched"),
        (torch.no_grad()(training()), "gradients are switched off"),
        (training_that_returns_early, "return inside the loop"),
        (training(average=lambda losses, sizes: losses[-1]), "last batch only"),
        (training(average=lambda losses, sizes: losses[0]), "first batch only"),
        (training(average=lambda losses, sizes: -of_images(losses, sizes) / sum(sizes)), "wrong sign"),
        (training(loss_of=squared_error), "mean squared error"),
        (training(average=mean_of_means), "mean of the batch means"),
        (training(average=lambda losses, sizes: sum(losses)), "not averaged"),
        (training(average=of_images), "divide by the number of images"),
        (training(average=lambda losses, sizes: sum(losses) / sum(sizes)), "too small"),
        (training(average=lambda losses, sizes: of_images(losses, sizes) / len(sizes)), "number of batches"),
        (training(take=lambda loss: loss), "keeps the graph"),
        (training(take=lambda loss: loss.detach()), "return a float"),
        (training(average=lambda losses, sizes: None), "return"),
        (training(average=lambda losses, sizes: losses), "not a list"),
        (training(average=lambda losses, sizes: 3.0), "The loss is 3, not the mean"),
        (lambda model, batches: 0.0, "TypeError"),
    ],
    "student_evaluate": [
        (evaluating(mode=None), "model.eval() is never called"),
        (evaluating(mode="train"), "model.eval() is never called"),
        (evaluating(late=True), "too late"),
        (evaluating(grad=True), "torch.no_grad()"),
        (evaluating(train_too=True), "weights have changed"),
        (evaluating(backward=True), "calls backward()"),
        (evaluating(share=lambda rights, sizes: 100 * sum(rights) / sum(sizes)), "percent"),
        (evaluating(share=mean_of_shares), "mean of the batch means"),
        (evaluating(share=lambda rights, sizes: rights[-1] / sizes[-1]), "last batch only"),
        (evaluating(share=lambda rights, sizes: sum(rights)), "number of right answers"),
        (evaluating(share=lambda rights, sizes: sum(rights) / len(sizes)), "number of batches"),
        (evaluating(share=lambda rights, sizes: 1 - sum(rights) / sum(sizes)), "wrong answers"),
        (evaluating(dim=0), "argmax over dim=1"),
        (evaluating(average=mean_of_means), "mean of the batch means"),
        (evaluating(average=lambda losses, sizes: losses[-1]), "last batch only"),
        (evaluating(average=lambda losses, sizes: sum(losses)), "not averaged"),
        (evaluating(loss_of=lambda logits, labels: F.cross_entropy(logits.softmax(1), labels)), "softmax"),
        (evaluating(loss_of=lambda logits, labels: F.cross_entropy(labels, logits)), "swapped"),
        (evaluating(result=lambda loss, accuracy: (accuracy, loss)), "swapped"),
        (evaluating(result=lambda loss, accuracy: accuracy), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, accuracy, 12)), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, torch.tensor(accuracy))), "accuracy is a tensor"),
        (evaluating(result=lambda loss, accuracy: None), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, None)), "None"),
    ],
    "run": [
        # The signature.
        *[(trial_without(name), f"{name} is missing") for name in check.ARGUMENTS],
        (trial_with_short_names, "batch_size is missing"),
        (package_run, "the package's own"),
        (partial(package_run, device=None), "the package's own"),
        (trial_with_flips, "images are flipped"),
        (trial(optimizer=sgd_with(nesterov=True)), "nesterov=True"),
        (trial(optimizer=sgd_with(dampening=0.5)), "dampening=0.5"),
        (trial_with_a_schedule, "learning rate changes"),
        (
            trial(evaluate_on=lambda given: given.val_set[torch.arange(100)], val_batch_size=lambda given: 50),
            "100 of the 300 images of val_set",
        ),
        (trial_with_a_momentum, "passes no argument momentum"),
        (nn.Identity(), "must be a function"),
        ([1, 2], "must be a function"),
        # The network.
        (trial(model=lambda given: shared), "build_model is not called"),
        (trial(model=lambda given: build_network()), "build_model is not called"),
        (trial(model=lambda given: OnlyLargeImages()), "build_model is not called"),
        (trial_in_the_same_network(), "build_model is not called"),
        (trial_of_another_network, "never trained"),
        (trial_of_two_networks, "another network"),
        (trial(weights=lambda model: [model[2].bias]), "part of the weights"),
        # The seed.
        (trial(set_seed=lambda given: None), "start from different weights"),
        (trial(set_seed=lambda given: torch.manual_seed(11)), "Another seed results in the same initial weights"),
        (trial(set_seed=lambda given: torch.manual_seed(SEED)), "Another seed results in the same initial weights"),
        (trial(order=lambda given: None), "same order in every epoch"),
        (trial_with_a_loop(set_epoch=False), "call set_epoch"),
        (trial(order=lambda given: torch.seed() % 1000), "different orders"),
        (trial(order=lambda given: 11), "Another seed results in the same order"),
        (trial(order=lambda given: SEED), "Another seed results in the same order"),
        # The images.
        (trial(train_on=lambda given: given.val_set), "trained on validation images"),
        (trial(train_on=lambda given: notebook_set), "neither train_set nor val_set"),
        (
            trial(evaluate_on=lambda given: notebook_set, val_batch_size=lambda given: 24),
            "neither train_set nor val_set",
        ),
        (trial_of_the_notebooks_images, "neither train_set nor val_set"),
        (trial(evaluate_on=lambda given: given.train_set, val_batch_size=lambda given: 20), "from the training images"),
        (trial(batch_size=lambda given: 16), "batch_size is not used"),
        (trial(batch_size=lambda given: 4), "batch_size is not used"),
        (trial(batch_size=lambda given: 64), "ValueError"),
        (
            trial(pixels=lambda given: 6, val_pixels=lambda given: 6),
            "image_size=8, the network gets images of 6 pixels",
        ),
        (
            trial(pixels=lambda given: 8, val_pixels=lambda given: 8),
            "image_size=10, the network gets images of 8 pixels",
        ),
        (
            trial(pixels=lambda given: IMAGE_SIZES["AlexNet"]),
            "16 pixels: pass image_size to both",
        ),
        (
            trial(val_pixels=lambda given: IMAGE_SIZES["AlexNet"]),
            "16 pixels: pass image_size to both",
        ),
        # The epochs.
        (trial(epochs=lambda given: 1), "Called with epochs=2 and 20 training images, it trains on 20"),
        (trial(epochs=lambda given: 2), "Called with epochs=3 and 20 training images, it trains on 40"),
        (trial(epochs=lambda given: EPOCHS), "Called with epochs=2 and 20 training images, it trains on 80"),
        (trial(result=list), "returns a list"),
        (trial(result=lambda epochs: list(epochs)[-1]), "returns one Epoch"),
        (trial(result=lambda epochs: print(end="")), "returns None"),
        (trial_that_yields_the_last, "not only the last"),
        (trial_that_yields_a_list, "all of them in a list"),
        (trial_that_yields_at_the_end, "before the first one is yielded"),
        (trial_that_yields_accuracies, "a float"),
        (trial_that_yields_nothing, "yields nothing"),
        # The optimizer.
        (trial(optimizer=lambda weights, given: torch.optim.SGD(weights, lr=0.001, momentum=0.9)), "lr is not used"),
        (
            trial(
                optimizer=lambda weights, given: torch.optim.SGD(weights, 0.05, 0.9, weight_decay=given.weight_decay)
            ),
            "lr is not used",
        ),
        (
            trial(optimizer=lambda weights, given: torch.optim.SGD(weights, given.lr, weight_decay=given.weight_decay)),
            "momentum is 0: use 0.9",
        ),
        (
            trial(optimizer=lambda weights, given: torch.optim.SGD(weights, lr=given.lr, momentum=0.5)),
            "momentum is 0.5: use 0.9",
        ),
        (
            trial(optimizer=lambda weights, given: torch.optim.SGD(weights, lr=given.lr, momentum=0.9)),
            "its optimizer has weight_decay=0: weight_decay is not used",
        ),
        (
            trial(optimizer=lambda weights, given: torch.optim.SGD(weights, given.lr, 0.9, weight_decay=5e-4)),
            "its optimizer has weight_decay=0.0005: weight_decay is not used",
        ),
        (
            trial(
                optimizer=lambda weights, given: torch.optim.Adam(weights, given.lr, weight_decay=given.weight_decay)
            ),
            "optimizer is Adam",
        ),
        # The checkpoint.
        (trial(keep=lambda checkpoint: {}), "The trial is not saved"),
        (trial(keep=lambda checkpoint: {"checkpoint": None}), "The trial is not saved"),
        (trial(keep=lambda checkpoint: {"checkpoint": "trial.pt"}), "saved in 'trial.pt'"),
        (trial(keep=lambda checkpoint: {"checkpoint": "results/alexnet.pt"}), "saved in 'alexnet.pt'"),
        (trial(keep=lambda checkpoint: {"checkpoint": f"{checkpoint}.pt"}), "pass checkpoint to train as it is"),
        (trial(keep=lambda checkpoint: {"scheduler": checkpoint}), "takes checkpoint as its scheduler"),
        (trial(before=lambda checkpoint: checkpoint.touch()), "let only train write it"),
        (trial(before=lambda checkpoint: torch.save({}, checkpoint)), "let only train write it"),
        (trial(before=lambda checkpoint: torch.load(checkpoint)), "A new trial has no file"),
        (trial_that_opens_the_file, "in your line"),
        (trial(before=lambda checkpoint: checkpoint.unlink(missing_ok=True)), "repeats that epoch"),
        (trial_that_saves_only_the_weights, "repeats that epoch"),
        (trial_that_returns_if_there_is_a_file, "yields the epochs []"),
        (trial_with_a_loop(all_epochs=False), "yields the epochs [2]"),
        (trial_with_a_loop(parts=("optimizer", "order")), "the weights, the optimizer's momentum"),
        (trial_with_a_loop(parts=("model", "order")), "the weights, the optimizer's momentum"),
        (trial_with_a_loop(parts=("model", "optimizer")), "the order of the images must continue"),
        (trial_with_a_loop(saved_as="weights"), 'no weights under "model"'),
    ],
    "pick_best": [
        (check.package_pick_best, "the package's own"),
        (lambda results: point(last(results)[~last(results).diverged].nlargest(1, "val_accuracy").iloc[0]), "failed"),
        (lambda results: point(last(results[~results.diverged]).nlargest(1, "test_accuracy").iloc[0]), "test accuracy"),
        (lambda results: point(results.nlargest(1, "test_accuracy").iloc[0]), "test accuracy"),
        (lambda results: point(last(results).nlargest(1, "train_accuracy").iloc[0]), "training accuracy"),
        (
            lambda results: point(
                results[~results.groupby(POINT).diverged.transform("any")].nlargest(1, "val_accuracy").iloc[0]
            ),
            "best epoch of any trial",
        ),
        (
            lambda results: point(results[results.state == "completed"].nlargest(1, "val_accuracy").iloc[0]),
            "best epoch of any trial",
        ),
        (
            lambda results: point(last(results[results.state == "diverged"]).nlargest(1, "val_accuracy").iloc[0]),
            "considers a trial that diverged",
        ),
        (lambda results: point(last(results).nlargest(1, "val_accuracy").iloc[0]), "considers a trial that diverged"),
        (lambda results: point(results.loc[results.val_accuracy.idxmax()]), "considers a trial that diverged"),
        (
            lambda results: point(results[~results.diverged].nlargest(1, "val_accuracy").iloc[0]),
            "all of its rows must go",
        ),
        (
            lambda results: point(last(results[~results.diverged]).nlargest(1, "val_accuracy").iloc[0]),
            "all of its rows must go",
        ),
        (
            lambda results: point(last(results)[~last(results).diverged].nsmallest(1, "val_accuracy").iloc[0]),
            "smallest",
        ),
        (lambda results: point(results.iloc[0]), "first row"),
        (lambda results: point(results.iloc[-1]), "last row"),
        (lambda results: point(results.iloc[6]), "print the last epoch's rows"),
        (lambda results: last(results)[~last(results).diverged].val_accuracy.max(), "returns an accuracy"),
        (lambda results: int(results.val_accuracy.idxmax()), "index"),
        (lambda results: last(results)[~last(results).diverged].nlargest(1, "val_accuracy"), "rows of the table"),
        (lambda results: results.loc[results.val_accuracy.idxmax()], "rows of the table"),
        (lambda results: (32, 0.001, 5e-4), "the order is"),
        (lambda results: (0.001, 32), "three numbers"),
        (lambda results: "lr 0.001", "three numbers"),
        (lambda results: results.sort_values("val_accuracy", inplace=True), "return"),
        (lambda results: results["accuracy"], "KeyError"),
    ],
    "conclusions": [
        ([1, 2], "dict with the keys"),
        ({"a": "diverged"}, "dict with the keys"),
        (answers(a="diverged"), "a: At 0.1 no trial diverged"),
        (answers(a="it was bad"), "a: choose one of"),
        (answers(b=64), "b: An epoch has one step per batch"),
        (answers(b="16"), "b: the answer is a number"),
        (answers(c=282), "c: That is one epoch"),
        (answers(c=843), "c: The last batch is smaller"),
        (answers(c=843.75), "c: A number of steps is an integer"),
        (answers(c=939), "c: 500 of the 5,000"),
        (answers(c=13500), "c: That counts images"),
        (answers(c=7), "c: 7 does not follow"),
        (answers(d="nothing"), "d: The best cell is on an edge"),
        (answers(e="grows"), "e: Work out training minus validation"),
        (answers(f=0.4), "f: That is in percentage points"),
        (answers(f=34), "f: That is the difference between decays 0 and 0.05"),
        (answers(g="test"), "g: Images that you base a choice on"),
        (answers(g="training"), "g: A network can memorise its training images"),
        (answers(h=9), "h: That is once for each point"),
    ],
}


@pytest.mark.parametrize("name", ["trial.pt", "results/trial.pt"])
def test_no_file_of_an_answer_stays_in_the_students_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert check.run(trial(keep=lambda checkpoint: {"checkpoint": name})).status == "wrong"
    assert Path.cwd() == tmp_path and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", RIGHT["run"])
def test_a_search_trains_with_every_right_answer_and_keeps_its_checkpoints(tmp_path, answer):
    arguments = check._Trial(tmp_path / "trial.pt").arguments
    point = {name: arguments.pop(name) for name in POINT}
    checkpoint = arguments.pop("checkpoint")
    assert [epoch.number for epoch in epochs_of(partial(answer, **arguments), point, checkpoint)] == [1, 2]
    assert checkpoint.exists()


def test_the_right_choice_differs_from_every_tempting_one():
    for table in check.TABLES:
        chosen = check.package_pick_best(table)
        for column in ("train_accuracy", "val_accuracy", "test_accuracy"):
            assert tuple(table.loc[table[column].idxmax(), POINT]) != chosen


def test_a_missing_conclusion_is_unanswered():
    verdict = check.conclusions(answers(c=None, e=None))
    assert verdict.status == "unanswered" and "c, e" in verdict.message


def test_the_table_that_is_given_is_not_changed():
    before = [table.copy() for table in check.TABLES]
    check.pick_best(lambda results: results.drop(results.index, inplace=True))
    for table, copy in zip(check.TABLES, before, strict=True):
        pd.testing.assert_frame_equal(table, copy)
