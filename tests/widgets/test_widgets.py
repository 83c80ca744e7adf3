"""Explorers follow their controls, describe what they show, and report in one line what cannot be shown."""

import re

import pandas as pd
import pytest
import torch
from formula import value_of
from torch import nn
from torchvision import models

from cnnlesson import reference
from cnnlesson.data import Batches, ImageSet, shapes, take
from cnnlesson.models import resnet18
from cnnlesson.plots import blank, description, plot_grid, plot_weight_decay
from cnnlesson.results import last_epochs
from cnnlesson.widgets import (
    explore_convolution,
    explore_depth,
    explore_layers,
    explore_network,
    explore_results,
    explore_splits,
    explorer,
)
from cnnlesson.widgets.explorer import Choice, Explorer, Slider, Tick
from cnnlesson.widgets.layers import lesson_networks


@pytest.fixture(scope="module")
def some_images() -> ImageSet:
    return take(shapes(seed=0).test, 200, seed=0)


@pytest.fixture(scope="module")
def grids() -> dict[str, pd.DataFrame]:
    return dict(iter(reference.load("tiny_imagenet_grid").table.groupby("model")))


@pytest.fixture
def make(some_images, grids):
    """A function that returns an explorer by its name."""

    def make(name: str) -> Explorer:
        if name == "convolution":
            return explore_convolution()
        if name == "layers":
            return explore_layers()
        if name == "splits":
            return explore_splits(some_images)
        if name == "network":
            torch.manual_seed(0)
            return explore_network(resnet18(10), some_images, image_size=64)
        if name == "depth":
            return explore_depth(*next(iter(Batches(some_images, 8, 32, device="cpu"))), num_classes=10)
        return explore_results(grids)

    return make


def move(explored: Explorer, **values) -> str:
    """Set controls as a student does, and return the text below the picture."""
    for name, value in values.items():
        explored.controls[name].value = value
    return explored.text


NAMES = ["convolution", "layers", "splits", "network", "depth", "results"]


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_or_its_text_follows_every_control(make, name):
    explored = make(name)
    for control in explored.controls.values():
        before = explored.page.value
        widget = control.number if isinstance(control, Slider) else control
        if isinstance(control, Choice):
            last = widget.options[-1]
            widget.value = last[1] if isinstance(last, tuple) else last
        elif isinstance(control, Tick):
            widget.value = not widget.value
        else:
            widget.value += 1
        assert explored.page.value != before, widget.description
        assert "Error" not in explored.text


@pytest.mark.parametrize("name", NAMES)
def test_each_has_labels_a_picture_with_alt_text_and_its_facts(make, name, monkeypatch):
    explored = make(name)
    shown = []
    monkeypatch.setattr(explorer, "display", lambda bundle, raw: shown.append(bundle))
    explored._ipython_display_()
    live, still = shown
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"] == explored.box.model_id
    alt = re.search(r'<img alt="([^"]+)"', still["text/html"])[1]
    assert len(alt) > 20 and still["text/plain"].startswith(alt.replace("&#x27;", "'")[:40])
    assert explored.text in still["text/plain"]
    for control in explored.controls.values():
        assert (control.number if isinstance(control, Slider) else control).description


def test_what_cannot_be_drawn_is_a_line_instead_of_the_picture():
    def draw(size: int, kind: str) -> tuple:
        if size > 3:
            raise ValueError("too large: take 3 or less")
        if kind == "broken":
            raise RuntimeError("layer 2\n  has exploded")
        return plot_weight_decay(decays, blank()), f"size {size}"

    decays = pd.DataFrame(
        [(0.1, 0.5, 0.5, "completed")], columns=["weight_decay", "train_accuracy", "val_accuracy", "state"]
    )
    explored = Explorer({"size": Slider("size", 1, 1, 9), "kind": Choice("kind", ["whole", "broken"])}, draw)
    assert "<img" in explored.page.value and explored.text == "size 1"
    assert move(explored, size=4) == "too large: take 3 or less"
    assert "<img" not in explored.page.value and 'role="status"' in explored.page.value
    assert move(explored, size=2, kind="broken") == "RuntimeError: layer 2 has exploded"
    assert move(explored, kind="whole") == "size 2" and "<img" in explored.page.value


def test_a_value_out_of_range_is_moved_into_it():
    field = Slider("kernel", 3, 1, 15)
    field.number.value = 99
    assert field.value == 15


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(227, 11, 4, 2), (224, 11, 4, 0), (9, 4, 3, 1)])
def test_the_convolution_is_that_of_torch(size, kernel, stride, padding):
    text = move(
        explore_convolution(), size=size, kernel=kernel, stride=stride, padding=padding, in_channels=5, filters=7
    )
    layer = nn.Conv2d(5, 7, kernel, stride, padding)
    output = layer(torch.zeros(1, 5, size, size))
    assert f"output {output.shape[2]}×{output.shape[3]}" in text
    found = dict(re.findall(r"^(parameters|multiply-adds).*: (.+) = ", text, flags=re.MULTILINE))
    assert value_of(found["parameters"]) == sum(parameter.numel() for parameter in layer.parameters())
    assert value_of(found["multiply-adds"]) == output.numel() * layer.weight[0].numel()


def test_a_kernel_that_does_not_fit_is_reported():
    assert "a kernel of 9 pixels does not fit into 4 pixels" in move(explore_convolution(), size=4, kernel=9)


@pytest.mark.parametrize(
    ("name", "theirs"), [("AlexNet", models.alexnet), ("ResNet-34", models.resnet34), ("ResNet-50", models.resnet50)]
)
def test_the_layer_table_has_torchvisions_parameters(name, theirs):
    text = move(explore_layers(), name=name)
    total = next(line for line in text.splitlines() if line.startswith("total"))
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in theirs().parameters())
    assert float(total.split()[2].replace(",", "")) == pytest.approx(parameters / 1e3, abs=0.06)


@pytest.mark.parametrize(
    ("name", "layer", "arithmetic"),
    [
        ("AlexNet", "fc6", "parameters: 4096·9216 + 4096 = 37,752,832"),
        ("AlexNet, two towers", "conv2", "parameters: 256·48·5·5 + 256 = 307,456"),
        ("ResNet-50", "layer2.0.conv2", "multiply-adds: 128·128·3·3·29·29 = 124,010,496"),
        ("ResNet-18", "bn1", "parameters: 2·64 = 128"),
        ("AlexNet", "pool1", "height and width of the output: (56 + 2·0 - 3) / 2 + 1 = 27.5, rounded down"),
    ],
)
def test_a_layer_shows_its_arithmetic(name, layer, arithmetic):
    text = move(explore_layers(), name=name, layer=layer)
    assert arithmetic in text
    formula, _, result = arithmetic.partition(": ")[2].partition(" = ")
    assert value_of(formula) == float(result.partition(",  ")[0].replace(", rounded down", "").replace(",", ""))


def test_a_model_that_the_table_cannot_trace_is_reported():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 5)

        def forward(self, images):
            return self.linear(images)

    explored = explore_layers({"mine": Broken(), "AlexNet": lesson_networks()["AlexNet"]})
    # torch 2.15 names the operation too.
    assert re.match("RuntimeError: (addmm: )?mat1 and mat2 shapes cannot be multiplied", explored.text)
    assert "conv1" in move(explored, name="AlexNet")
    assert "got (1, 3, 64, 64): make the batches with image_size=227" in move(explored, size=64)
    assert "conv1" in move(explored, size=227)


def test_copies_are_found_if_the_split_separates_them(some_images):
    explored = explore_splits(some_images)
    assert "images of the validation part that are also in training: 0" in explored.text
    text = move(explored, copies=20, validation=50, stratified=False)
    # The copies are the last 20 of 220, and the seed determines the part of each image: 40, 50 and 10 % of them.
    train, validation, _ = (
        set(part.tolist())
        for part in torch.randperm(220, generator=torch.Generator().manual_seed(0)).split([88, 110, 22])
    )
    parted = sum(
        (place in train and 200 + place in validation) or (place in validation and 200 + place in train)
        for place in range(20)
    )
    assert parted > 0
    assert f"images of the validation part that are also in training: {parted}\n" in text


def test_stratified_folds_have_equal_class_counts_and_random_ones_need_not(some_images):
    def counts(text: str) -> list[list[int]]:
        lines = [line for line in text.splitlines() if line.split()[0] in some_images.classes]
        return [[int(count) for count in line.split()[-4:]] for line in lines]

    explored = explore_splits(some_images)  # ten classes of twenty
    assert counts(move(explored, folds=4)) == [[5, 5, 5, 5]] * 10
    random = counts(move(explored, stratified=False))
    assert [sum(row) for row in random] == [20] * 10 and random != [[5, 5, 5, 5]] * 10


def test_a_part_that_is_too_small_for_its_classes_is_reported(some_images):
    assert "200 images of 10 classes are too few to split into (0.89, 0.01, 0.1)" in move(
        explore_splits(some_images), validation=1
    )


def test_the_map_is_the_output_of_the_layer(some_images):
    torch.manual_seed(0)
    model = resnet18(10).train()
    explored = explore_network(model, some_images, image_size=64)
    text = move(explored, image=3, layer="conv1", channel=5)
    images, _ = next(iter(Batches(some_images[torch.tensor([3])], 1, 64, device="cpu")))
    maps = model.conv1(images)[0, 5]
    assert f"image 3, {some_images.classes[some_images.labels[3]]}; conv1, channel 5" in text
    assert f"from {maps.min():.2g} to {maps.max():.2g}" in text
    row, column = divmod(int(maps.argmax()), 32)
    assert f"row {row}, column {column} of the 32×32 map" in text
    assert model.training


def test_each_use_of_a_layer_can_be_chosen(some_images):
    torch.manual_seed(0)
    convolution, pool = nn.Conv2d(3, 3, kernel_size=3), nn.MaxPool2d(2)
    explored = explore_network(nn.Sequential(convolution, pool, nn.ReLU(), pool), some_images, image_size=64)
    assert explored.controls["layer"].options == ("0", "1", "1, use 2")
    for layer, size, field in (("1", 31, 4), ("1, use 2", 15, 6)):
        text = move(explored, layer=layer)
        assert f"of the {size}×{size} map" in text
        assert f"its receptive field is {field}×{field} pixels" in text


def test_images_of_another_size_and_missing_channels_are_reported(some_images):
    explored = explore_network(resnet18(10), some_images, image_size=64)
    assert "conv1 has 64 channels, 0 to 63: choose a smaller one" in move(explored, channel=64)
    with pytest.raises(ValueError, match="make the batches with image_size=227"):
        explore_network(lesson_networks()["AlexNet"], some_images, image_size=64)


def test_signals_of_plain_and_residual_networks_leave_the_notebooks_random_numbers_unchanged(make):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    explored = make("depth")
    move(explored, depth=8)
    assert torch.equal(torch.rand(1), expected)
    assert [line.partition(":")[0] for line in explored.text.splitlines()] == [
        "plain, 8 layers, activations",
        "plain, 8 layers, gradients",
        "residual, 8 layers, activations",
        "residual, 8 layers, gradients",
    ]
    assert move(explored, plain=False, residual=False) == "nothing to draw: tick plain, residual or both"


def test_results_are_those_of_the_table(make, grids):
    explored = make("results")
    text = move(explored, name="resnet18", weight_decay=0.0005, lr=0.001, batch_size=32)
    table = grids["resnet18"]
    table = table[table["weight_decay"] == 0.0005]
    assert description(plot_grid(last_epochs(table), blank())).text in text
    point = table[(table["lr"] == 0.001) & (table["batch_size"] == 32)]
    assert f"{point['val_accuracy'].iloc[-1]:.1%} validation" in text
    assert description(plot_grid(last_epochs(table), blank(), "val_loss")).text in move(explored, metric="val_loss")
    assert "no trial has completed an epoch at this point" in move(explored, weight_decay=0.05, lr=0.1)


def test_points_that_have_not_ended_have_no_number(grids):
    table = grids["resnet18"].drop(columns="model")
    state = table["state"].mask((table["lr"] == 0.1) & (table["batch_size"] == 16), "running")
    waiting = {"lr": 0.01, "batch_size": 16, "weight_decay": 0.0005, "epoch": 0, "diverged": False, "state": "waiting"}
    unfinished = pd.concat([table.assign(state=state), pd.DataFrame([waiting])], ignore_index=True)
    explored = explore_results({"resnet18": unfinished})
    rows = dict(line.split(maxsplit=1) for line in explored.text.splitlines()[2:6])
    assert rows["0.1"].startswith("running") and rows["0.01"].startswith("waiting")
    assert "epoch 5: loss" in move(explored, lr=0.1, batch_size=16)
    assert "no trial has completed an epoch at this point" in move(explored, lr=0.01)


def test_results_without_a_hyper_parameter_are_refused(grids):
    with pytest.raises(
        ValueError, match=r"^the results of mine have no column weight_decay: pass the table of a search"
    ):
        explore_results({"mine": grids["alexnet"].drop(columns="weight_decay")})


@pytest.mark.parametrize("name", ["layers", "results"])
def test_a_control_that_changes_the_choices_of_lists_draws_once(make, name):
    explored = make(name)
    drawn, draw = [], explored.draw

    def counted(**values):
        drawn.append(values)
        return draw(**values)

    explored.draw = counted
    network = explored.controls["name"]
    move(explored, name=network.options[-1])
    assert len(drawn) == 1
    assert drawn[0]["name"] == network.options[-1]
