"""The live board shows how a training goes, costs little, and goes away with it."""

import time

import pytest
import torch
from torch import nn

from cnnlesson.data import Batches, batches
from cnnlesson.training import Epoch, train
from cnnlesson.widgets import board
from cnnlesson.widgets.board import live_board


class Place:
    """Stands for a place in a notebook's output."""

    def __init__(self):
        self.shown = []

    def update(self, bundle: dict, raw: bool) -> None:
        self.shown.append(bundle)


@pytest.fixture
def places(monkeypatch) -> list[Place]:
    places = []

    def output_area() -> Place:
        places.append(Place())
        return places[-1]

    monkeypatch.setattr(board, "output_area", output_area)
    return places


def epochs(number: int = 3, error: BaseException | None = None):
    for k in range(1, number + 1):
        if error and k == number:
            raise error
        yield Epoch(k, number, 2.3 / k, 0.1 * k, 2.4 / k, 0.05 * k, 0.01, 40.0, 123.0, False)


def test_without_a_notebook_each_epoch_is_a_line(capsys):
    assert [epoch.number for epoch in live_board(epochs())] == [1, 2, 3]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "epoch 1 of 3: training loss 2.300, validation loss 2.400, accuracy 5.0%; learning rate 0.01, "
        "123 images a second, 80 seconds left"
    )
    assert len(lines) == 4 and lines[-1] == "the training has ended"


def test_in_a_notebook_words_and_picture_change_in_place_and_the_last_picture_has_all_epochs(places, capsys):
    list(live_board(epochs()))
    words, picture = places
    assert capsys.readouterr().out == ""
    assert [bundle["text/plain"].partition(":")[0] for bundle in words.shown[:3]] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]
    assert words.shown[-1]["text/plain"].endswith("the training has ended")
    assert len(picture.shown) == 1  # the epochs were too short for more
    assert "<img alt=" in picture.shown[-1]["text/html"]
    assert "epoch 3" in picture.shown[-1]["text/plain"]


def test_where_epochs_take_longer_the_picture_follows_and_the_board_stays_cheap(places, monkeypatch):
    gone = [0.0]
    clock = time.perf_counter
    monkeypatch.setattr(board.time, "perf_counter", lambda: clock() + gone[0])

    def slow_epochs():
        for epoch in epochs(5):
            gone[0] += 60
            yield epoch

    start = clock()
    list(live_board(slow_epochs()))
    cost = clock() - start
    _, picture = places
    assert len(picture.shown) == 5
    assert cost < 0.02 * gone[0]


def test_a_training_that_fails_or_is_stopped_says_so_and_keeps_its_epochs(places):
    with pytest.raises(ValueError, match="no such luck"):
        list(live_board(epochs(error=ValueError("no such luck"))))
    words, picture = places
    assert words.shown[-1]["text/plain"].endswith("the training has stopped: ValueError: no such luck")
    assert "epoch 2" in picture.shown[-1]["text/plain"]
    with pytest.raises(KeyboardInterrupt):
        list(live_board(epochs(error=KeyboardInterrupt())))
    assert places[2].shown[-1]["text/plain"].endswith("the training has stopped: KeyboardInterrupt")


def test_who_wants_no_more_epochs_leaves_nothing_behind(places):
    before = list(batches._watchers)
    for epoch in live_board(epochs()):
        if epoch.number == 2:
            break
    assert batches._watchers == before
    assert places[0].shown[-1]["text/plain"].endswith("the training has stopped")


def test_the_doctor_speaks_on_the_board(places):
    stuck = [Epoch(k, 3, 2.3026, 0.1, 2.3026, 0.1, 0.1, 40.0, 123.0, False) for k in (1, 2, 3)]
    list(live_board(iter(stuck), num_classes=10))
    assert "the loss of guessing" in places[0].shown[2]["text/plain"]


def test_during_an_epoch_the_words_say_how_far_it_is(places, image_set, monkeypatch):
    monkeypatch.setattr(board, "SECONDS", 0)
    monkeypatch.setattr(board, "MOST_COST", 1000)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    train_batches = Batches(image_set, 10, 16, seed=0, device="cpu")
    val_batches = Batches(image_set, 30, 16, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    list(live_board(train(model, train_batches, val_batches, optimizer, epochs=2)))
    said = [bundle["text/plain"] for bundle in places[0].shown]
    assert any("now: 2 of 3 batches" in words and "images a second" in words for words in said)
