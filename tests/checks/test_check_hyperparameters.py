"""Answers to lesson 4 as students write them."""

import math
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checks import hyperparameters as check
from cnnlesson.data import Batches, ImageSet
from cnnlesson.training import Epoch, evaluate, train, train_one_epoch

# The names of the notebook that `run` may use: the check puts others in their place, and then these back.
train_set = val_set = build_model = EPOCHS = IMAGE_SIZE = "the student's own"
SEED = 5
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
    """A student's loop, with a mistake where an option asks for one."""

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
    """A student's evaluation, with a mistake where an option asks for one."""

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
def evaluating_at_once(model, batches):
    model.train(False)
    logits, labels = zip(*[(model(images), labels) for images, labels in batches], strict=True)
    logits, labels = torch.cat(logits), torch.cat(labels)
    return float(F.cross_entropy(logits, labels)), float((logits.max(1).indices == labels).float().mean())


def mean_of_means(values, sizes):
    return sum(values) / len(values)


def mean_of_shares(rights, sizes):
    return sum(right / size for right, size in zip(rights, sizes, strict=True)) / len(sizes)


def of_images(values, sizes):
    return sum(value * size for value, size in zip(values, sizes, strict=True))


shared = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
made_before = ImageSet(torch.randint(256, (24, 3, 6, 6), dtype=torch.uint8), torch.arange(24) % 3, ("a", "b", "c"))


def trial(
    model=lambda: build_model(),
    seed=lambda: torch.manual_seed(SEED),
    learn_from=lambda: train_set,
    judge_on=lambda: val_set,
    batch_size=lambda batch_size: batch_size,
    order=lambda: SEED,
    pixels=lambda: IMAGE_SIZE,
    optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=lr, momentum=0.9, weight_decay=decay),
    weights=lambda model: model.parameters(),
    epochs=lambda: EPOCHS,
    before=lambda checkpoint: None,
    keep=lambda checkpoint: {"checkpoint": checkpoint},
    hand_on=lambda epochs: epochs,
):
    """A student's trial, with a mistake where an option asks for one."""

    def answer(lr, batch_size, weight_decay, checkpoint):
        seed()
        network = model()
        train_batches = Batches(learn_from(), size_of(batch_size), pixels(), seed=order())
        val_batches = Batches(judge_on(), min(100, len(judge_on())), pixels())
        sgd = optimizer(weights(network), lr, weight_decay)
        before(checkpoint)
        return hand_on(train(network, train_batches, val_batches, sgd, epochs(), **keep(checkpoint)))

    size_of = batch_size
    return answer


def trial_with_a_loop(parts=("model", "optimizer", "batches"), all_epochs=True):
    """A trial that keeps its state without the package, or a part of it."""

    def answer(lr, batch_size, weight_decay, checkpoint):
        batches = Batches(train_set, batch_size=batch_size, image_size=IMAGE_SIZE, seed=SEED)
        torch.random.manual_seed(SEED)
        network = build_model()
        sgd = torch.optim.SGD(network.parameters(), lr, 0.9, 0, weight_decay)
        judged_on = Batches(val_set, batch_size=50, image_size=IMAGE_SIZE)
        epochs = []
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=False)
            epochs = state["epochs"]
            if "model" in parts:
                network.load_state_dict(state["model"])
            if "optimizer" in parts:
                sgd.load_state_dict(state["optimizer"])
        if all_epochs:
            yield from epochs
        first_pass = 0 if "batches" in parts else len(epochs)
        for number in range(len(epochs) + 1, EPOCHS + 1):
            batches.set_epoch(number - 1 - first_pass)
            learned, judged = train_one_epoch(network, batches, sgd), evaluate(network, judged_on)
            figures = (*learned[:2], *judged[:2], lr, 1, 1)
            epochs.append(Epoch(number, EPOCHS, *figures, diverged=math.isnan(judged[0])))
            state = {"epochs": epochs, "model": network.state_dict(), "optimizer": sgd.state_dict()}
            torch.save(state, checkpoint)
            yield epochs[-1]

    return answer


def trial_that_yields_the_last(lr, batch_size, weight_decay, checkpoint):
    *_, last = trial()(lr, batch_size, weight_decay, checkpoint)
    yield last


def trial_that_yields_a_list(lr, batch_size, weight_decay, checkpoint):
    yield list(trial()(lr, batch_size, weight_decay, checkpoint))


def trial_that_yields_at_the_end(lr, batch_size, weight_decay, checkpoint):
    yield from list(trial()(lr, batch_size, weight_decay, checkpoint))


def trial_that_yields_accuracies(lr, batch_size, weight_decay, checkpoint):
    for epoch in trial()(lr, batch_size, weight_decay, checkpoint):
        yield epoch.val_accuracy


def trial_that_yields_nothing(lr, batch_size, weight_decay, checkpoint):
    for _ in trial()(lr, batch_size, weight_decay, checkpoint):
        pass
    yield from ()


def trial_in_the_same_network():
    kept = []

    def run(lr, batch_size, weight_decay, checkpoint):
        torch.manual_seed(SEED)
        if not kept:
            kept.append(build_model())
        yield from trial(model=lambda: kept[0])(lr, batch_size, weight_decay, checkpoint)

    return run


def trial_of_two_networks(lr, batch_size, weight_decay, checkpoint):
    torch.manual_seed(SEED)
    other = build_model()
    yield from trial(weights=lambda model: other.parameters())(lr, batch_size, weight_decay, checkpoint)


def trial_of_another_network(lr, batch_size, weight_decay, checkpoint):
    build_model()
    yield from trial(model=lambda: shared)(lr, batch_size, weight_decay, checkpoint)


def from_alexnet(images):
    raise ValueError("AlexNet takes images of shape (N, 3, 227, 227)")


def trial_of_a_global_alexnet(lr, batch_size, weight_decay, checkpoint):
    from_alexnet(train_set)
    yield


def trial_without_a_checkpoint(lr, batch_size, weight_decay):
    yield from trial()(lr, batch_size, weight_decay, None)


def trial_with_short_names(lr, bs, wd, checkpoint):
    yield from trial()(lr, bs, wd, checkpoint)


def trial_of_another_momentum(lr, batch_size, weight_decay, momentum, checkpoint):
    yield from trial()(lr, batch_size, weight_decay, checkpoint)


def trial_that_saves_the_weights_itself(lr, batch_size, weight_decay, checkpoint):
    networks = []

    def model():
        networks.append(build_model())
        return networks[0]

    for epoch in trial(model=model, keep=lambda checkpoint: {})(lr, batch_size, weight_decay, checkpoint):
        torch.save(networks[0].state_dict(), checkpoint)
        yield epoch


def trial_that_opens_the_file(lr, batch_size, weight_decay, checkpoint):
    with open(checkpoint, "wb") as file:
        yield from trial()(lr, batch_size, weight_decay, checkpoint=file)


def trial_that_returns_where_there_is_a_file(lr, batch_size, weight_decay, checkpoint):
    if not checkpoint.exists():
        yield from trial()(lr, batch_size, weight_decay, checkpoint)


def last(results):
    return results.groupby(POINT).tail(1)


def point(row):
    return row["lr"], row["batch_size"], row["weight_decay"]


def best_by_sorting(results):
    table = results[(results.epoch == results.epoch.max()) & ~results.diverged].sort_values("val_accuracy")
    return tuple(table.iloc[-1][POINT])


def best_of_completed(results):
    completed = results.query("state == 'completed'").groupby(POINT, as_index=False).last()
    return completed.nlargest(1, "val_accuracy")[POINT].iloc[0].tolist()


def best_by_a_loop(results):
    best, best_accuracy = None, -1
    for (lr, batch_size, decay), rows in results.groupby(POINT):
        if not rows["diverged"].any() and rows["val_accuracy"].iloc[-1] > best_accuracy:
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
        evaluating_at_once,
        evaluating(result=lambda loss, accuracy: [loss, accuracy]),
    ],
    "run": [
        trial(),
        trial_with_a_loop(),
        trial(keep=lambda checkpoint: {"checkpoint": str(checkpoint)}),
        trial(judge_on=lambda: val_set, pixels=lambda: IMAGE_SIZE),
    ],
    "pick_best": [best_by_sorting, best_by_a_loop, best_of_completed, check.package_pick_best],
    "conclusions": [answers(), answers(a=" Learned worse", b=16.0, g="Validation")],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "student_train_one_epoch": [
        (training(mode=None), "model.train() is never called"),
        (training(mode="eval"), "model.train() is never called"),
        (training(zero=None), "add up"),
        (training(zero=None, zero_once=True), "add up"),
        (training(zero="between"), "stands between"),
        (training(step=False), "optimizer.step() is never called"),
        (training_in_another_network, "optimizer.step() is never called"),
        (training(backward=False), "loss.backward() is never called"),
        (training(backward=False, step=False), "loss.backward() and optimizer.step() are never called"),
        (training(step="last"), "each batch is a step of its own"),
        (training(zero=None, step="first"), "stands before loss.backward()"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits.softmax(1), labels)), "softmax"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(labels, logits)), "swapped"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")), "summed"),
        (training(loss_of=lambda logits, labels: F.cross_entropy(logits.detach(), labels)), "gradients are switched"),
        (torch.no_grad()(training()), "gradients are switched off"),
        (training_that_returns_early, "return stand inside the loop"),
        (training(average=lambda losses, sizes: losses[-1]), "last batch alone"),
        (training(average=mean_of_means), "mean of the batches' means"),
        (training(average=lambda losses, sizes: sum(losses)), "not averaged"),
        (training(average=of_images), "divide by the number of images"),
        (training(average=lambda losses, sizes: sum(losses) / sum(sizes)), "too small"),
        (training(average=lambda losses, sizes: of_images(losses, sizes) / len(sizes)), "number of batches"),
        (training(take=lambda loss: loss), "keeps the graph"),
        (training(take=lambda loss: loss.detach()), "a float is asked for"),
        (training(average=lambda losses, sizes: None), "return"),
        (training(average=lambda losses, sizes: losses), "not a list"),
        (training(average=lambda losses, sizes: 3.0), "comes out as 3"),
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
        (evaluating(share=mean_of_shares), "averaged over the batches"),
        (evaluating(share=lambda rights, sizes: rights[-1] / sizes[-1]), "last batch alone"),
        (evaluating(share=lambda rights, sizes: sum(rights)), "number of right answers"),
        (evaluating(share=lambda rights, sizes: sum(rights) / len(sizes)), "number of batches"),
        (evaluating(share=lambda rights, sizes: 1 - sum(rights) / sum(sizes)), "wrong answers"),
        (evaluating(dim=0), "argmax over dim=1"),
        (evaluating(average=mean_of_means), "mean of the batches' means"),
        (evaluating(average=lambda losses, sizes: losses[-1]), "last batch alone"),
        (evaluating(average=lambda losses, sizes: sum(losses)), "not averaged"),
        (evaluating(loss_of=lambda logits, labels: F.cross_entropy(logits.softmax(1), labels)), "softmax"),
        (evaluating(loss_of=lambda logits, labels: F.cross_entropy(labels, logits)), "swapped"),
        (evaluating(result=lambda loss, accuracy: (accuracy, loss)), "wrong way round"),
        (evaluating(result=lambda loss, accuracy: accuracy), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, accuracy, 12)), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, torch.tensor(accuracy))), "accuracy is a tensor"),
        (evaluating(result=lambda loss, accuracy: None), "two numbers"),
        (evaluating(result=lambda loss, accuracy: (loss, None)), "None"),
    ],
    "run": [
        (trial(model=lambda: shared), "share a network"),
        (trial_in_the_same_network(), "share a network"),
        (trial_of_a_global_alexnet, "share a network"),
        (trial_of_another_network, "never trained"),
        (trial_of_two_networks, "another network"),
        (trial(weights=lambda model: [model[2].bias]), "part of the weights"),
        (trial(seed=lambda: None), "start from different weights"),
        (trial(seed=lambda: torch.manual_seed(0)), "Another SEED gives the same first weights"),
        (trial(order=lambda: None), "same order in every epoch"),
        (trial(order=lambda: torch.seed() % 1000), "different orders"),
        (trial(order=lambda: 0), "Another SEED gives the same order"),
        (trial(learn_from=lambda: val_set), "trained on validation images"),
        (trial(learn_from=lambda: made_before), "made before"),
        (trial(judge_on=lambda: made_before), "made before"),
        (trial(judge_on=lambda: train_set), "come from the training images"),
        (trial(batch_size=lambda batch_size: 16), "batch_size is not used"),
        (trial(pixels=lambda: 6), "image_size=IMAGE_SIZE"),
        (trial(epochs=lambda: 1), "is EPOCHS used"),
        (
            trial(optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=0.001, momentum=0.9)),
            "lr is not used",
        ),
        (
            trial(optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=lr, weight_decay=decay)),
            "no momentum",
        ),
        (
            trial(optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=lr, momentum=0.5)),
            "momentum is 0.5",
        ),
        (
            trial(optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=lr, momentum=0.9)),
            "trains without: the optimizer must get it",
        ),
        (
            trial(
                optimizer=lambda weights, lr, decay: torch.optim.SGD(weights, lr=lr, momentum=0.9, weight_decay=5e-4)
            ),
            "weight_decay is not used",
        ),
        (
            trial(optimizer=lambda weights, lr, decay: torch.optim.Adam(weights, lr=lr, weight_decay=decay)),
            "optimizer is Adam",
        ),
        (trial(hand_on=list), "returns a list"),
        (trial(hand_on=lambda epochs: list(epochs)[-1]), "returns one Epoch"),
        (trial(hand_on=lambda epochs: print(end="")), "returns None"),
        (trial_that_yields_the_last, "not the last alone"),
        (trial_that_yields_a_list, "a list of them at once"),
        (trial_that_yields_at_the_end, "before the first is yielded"),
        (trial_that_yields_accuracies, "a float"),
        (trial_that_yields_nothing, "yields nothing"),
        (trial(batch_size=lambda batch_size: 64), "ValueError"),
        (nn.Identity(), "must be a function"),
        (trial_without_a_checkpoint, "checkpoint is not among them"),
        (trial_with_short_names, "batch_size is not among them"),
        (trial_of_another_momentum, "does not know its parameter momentum"),
        (trial(keep=lambda checkpoint: {}), "Nothing is kept"),
        (trial(keep=lambda checkpoint: {"checkpoint": None}), "Nothing is kept"),
        (trial(keep=lambda checkpoint: {"checkpoint": "trial.pt"}), "kept in 'trial.pt'"),
        (trial(keep=lambda checkpoint: {"checkpoint": "results/alexnet.pt"}), "kept in 'alexnet.pt'"),
        (trial(keep=lambda checkpoint: {"checkpoint": f"{checkpoint}.pt"}), "hand checkpoint on to train as it is"),
        (trial(keep=lambda checkpoint: {"scheduler": checkpoint}), "takes checkpoint for its scheduler"),
        (trial(before=lambda checkpoint: checkpoint.touch()), "leave opening, writing and reading"),
        (trial(before=lambda checkpoint: torch.save({}, checkpoint)), "leave opening, writing and reading"),
        (trial(before=lambda checkpoint: torch.load(checkpoint)), "A new trial has no file yet"),
        (trial_that_opens_the_file, "in your line"),
        (trial(before=lambda checkpoint: checkpoint.unlink(missing_ok=True)), "trains that epoch again"),
        (trial_that_saves_the_weights_itself, "trains that epoch again"),
        (trial_that_returns_where_there_is_a_file, "yields the epochs []"),
        (trial_with_a_loop(all_epochs=False), "yields the epochs [2]"),
        (trial_with_a_loop(parts=("optimizer", "batches")), "the weights, the optimizer's momentum"),
        (trial_with_a_loop(parts=("model", "batches")), "the weights, the optimizer's momentum"),
        (trial_with_a_loop(parts=("model", "optimizer")), "the order of the images must go on"),
    ],
    "pick_best": [
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
            "diverged is still among them",
        ),
        (lambda results: point(last(results).nlargest(1, "val_accuracy").iloc[0]), "diverged is still among them"),
        (lambda results: point(results.loc[results.val_accuracy.idxmax()]), "diverged is still among them"),
        (
            lambda results: point(results[~results.diverged].nlargest(1, "val_accuracy").iloc[0]),
            "earlier epochs must go",
        ),
        (
            lambda results: point(last(results[~results.diverged]).nlargest(1, "val_accuracy").iloc[0]),
            "earlier epochs must go",
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
        (answers(b=64), "b: An epoch has as many steps"),
        (answers(b="16"), "b: the answer is a number"),
        (answers(c=282), "c: That is one epoch"),
        (answers(c=843), "c: The last batch is smaller"),
        (answers(c=843.75), "c: A number of steps is whole"),
        (answers(c=939), "c: 500 of the 5,000"),
        (answers(c=13500), "c: That counts images"),
        (answers(c=7), "c: 7 does not follow"),
        (answers(d="nothing"), "d: The best cell lies on an edge"),
        (answers(e="grows"), "e: Work out training minus validation"),
        (answers(f=0.4), "f: That is in percentage points"),
        (answers(f=34), "f: That is the difference between decays 0 and 0.05"),
        (answers(g="test"), "g: What a choice was made on"),
        (answers(g="training"), "g: A network can learn its training images by heart"),
        (answers(h=9), "h: That is once for each point"),
    ],
}


@pytest.mark.parametrize("answer", [trial(), trial(hand_on=list), trial(batch_size=lambda batch_size: 64)])
def test_the_names_of_the_notebook_are_put_back(answer):
    check.run(answer)
    assert train_set == val_set == build_model == EPOCHS == IMAGE_SIZE == "the student's own"
    assert SEED == 5


def test_names_that_the_notebook_does_not_have_yet_are_taken_away_again():
    names = {}
    exec("def run(lr, batch_size, weight_decay, checkpoint):\n    yield from build_model()", names)
    before = set(names)
    assert check.run(names["run"]).status == "wrong"
    assert set(names) == before


def test_the_packages_run_goes_on_where_the_students_is_not_right_yet(tmp_path):
    bench = check._Bench()
    run = partial(check.package_run, bench.names | {"SEED": 0})
    point = {"lr": 0.05, "batch_size": 4, "weight_decay": 0.0, "checkpoint": tmp_path / "trial.pt"}
    epochs = list(run(**point))
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert {len(one.values) for one in bench.passes if one.is_training} == {4}
    bench.start()
    assert list(run(**point)) == epochs
    assert bench.trained() == []


@pytest.mark.parametrize("name", ["trial.pt", "results/trial.pt"])
def test_files_of_an_answer_do_not_stay_in_the_students_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert check.run(trial(keep=lambda checkpoint: {"checkpoint": name})).status == "wrong"
    assert Path.cwd() == tmp_path and list(tmp_path.iterdir()) == []


def test_the_right_choice_differs_from_every_tempting_one():
    for table in check.TABLES:
        chosen = check.package_pick_best(table)
        for column in ("train_accuracy", "val_accuracy", "test_accuracy"):
            assert check._point(table.loc[table[column].idxmax()]) != chosen


def test_a_missing_conclusion_is_unanswered():
    verdict = check.conclusions(answers(c=None, e=None))
    assert verdict.status == "unanswered" and "c, e" in verdict.message


def test_the_table_that_is_given_is_not_changed():
    before = [table.copy() for table in check.TABLES]
    check.pick_best(lambda results: results.drop(results.index, inplace=True))
    for table, copy in zip(check.TABLES, before, strict=True):
        pd.testing.assert_frame_equal(table, copy)
