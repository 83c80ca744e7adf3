"""The live board shows the progress of a training, costs little, and ends with it."""

import time

import pytest
import torch
from torch import nn

from cnnlesson.data import Batches, batches
from cnnlesson.training import Epoch, train
from cnnlesson.widgets import board
from cnnlesson.widgets.board import live_board


class Area:
    """Stands in for an output area of a notebook."""

    def __init__(self):
        self.shown = []

    def update(self, bundle: dict, raw: bool) -> None:
        self.shown.append(bundle)


@pytest.fixture
def areas(monkeypatch) -> list[Area]:
    areas = []

    def output_area() -> Area:
        areas.append(Area())
        return areas[-1]

    monkeypatch.setattr(board, "in_notebook", lambda: True)
    monkeypatch.setattr(board, "output_area", output_area)
    return areas


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
        "123 images per second, 80 seconds left"
    )
    assert len(lines) == 4 and lines[-1] == "the training has ended"


def test_in_a_notebook_text_and_picture_are_updated_and_the_last_picture_has_all_epochs(areas, capsys):
    list(live_board(epochs()))
    text, picture = areas
    assert capsys.readouterr().out == ""
    assert [bundle["text/plain"].partition(":")[0] for bundle in text.shown[:3]] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]
    assert text.shown[-1]["text/plain"].endswith("the training has ended")
    assert len(picture.shown) == 1  # the epochs were too short for more
    assert "<img alt=" in picture.shown[-1]["text/html"]
    assert "epoch 3" in picture.shown[-1]["text/plain"]


def test_long_epochs_have_a_picture_each_and_the_board_stays_cheap(areas, monkeypatch):
    passed = [0.0]
    clock = time.perf_counter
    monkeypatch.setattr(board.time, "perf_counter", lambda: clock() + passed[0])

    def slow_epochs():
        for epoch in epochs(5):
            passed[0] += 600  # 1 % of it is enough for a picture on a busy computer
            yield epoch

    start = clock()
    list(live_board(slow_epochs()))
    cost = clock() - start
    _, picture = areas
    assert len(picture.shown) == 5
    assert cost < 0.02 * passed[0]


def test_the_board_of_a_training_that_fails_or_is_stopped_reports_it_and_keeps_its_epochs(areas):
    with pytest.raises(ValueError, match="no such luck"):
        list(live_board(epochs(error=ValueError("no such luck"))))
    text, picture = areas
    assert text.shown[-1]["text/plain"].endswith("the training has stopped: ValueError: no such luck")
    assert "epoch 2" in picture.shown[-1]["text/plain"]
    with pytest.raises(KeyboardInterrupt):
        list(live_board(epochs(error=KeyboardInterrupt())))
    assert areas[2].shown[-1]["text/plain"].endswith("the training has stopped: KeyboardInterrupt")


def test_a_loop_that_is_left_early_leaves_no_watcher_behind(areas):
    before = list(batches._watchers)
    for epoch in live_board(epochs()):
        if epoch.number == 2:
            break
    assert batches._watchers == before
    assert areas[0].shown[-1]["text/plain"].endswith("the training has stopped")


def test_the_doctors_remarks_are_on_the_board(areas):
    stuck = [Epoch(k, 3, 2.3026, 0.1, 2.3026, 0.1, 0.1, 40.0, 123.0, False) for k in (1, 2, 3)]
    list(live_board(iter(stuck), num_classes=10))
    assert "the loss at chance level" in areas[0].shown[2]["text/plain"]


def test_during_an_epoch_the_text_reports_its_progress(areas, image_set, monkeypatch):
    monkeypatch.setattr(board, "SECONDS", 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    train_batches = Batches(image_set, 10, 16, seed=0, device="cpu")
    val_batches = Batches(image_set, 30, 16, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    list(live_board(train(model, train_batches, val_batches, optimizer, epochs=2)))
    texts = [bundle["text/plain"] for bundle in areas[0].shown]
    assert any("now: 2 of 3 batches" in text and "images per second" in text for text in texts)
