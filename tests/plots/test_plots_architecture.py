import itertools

import pytest
import torch
import torchvision
from matplotlib import pyplot as plt
from matplotlib.patches import PathPatch, Polygon

from cnnlesson.models import AlexNet, TwoTowerAlexNet, cifar_resnet, resnet18, resnet34, resnet50
from cnnlesson.plots import description, plot_architecture


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def facts(axes) -> str:
    return description(axes).text


NETWORKS = {
    "AlexNet": (lambda: AlexNet(1000, dropout=0.5), 227, 12, 0),
    "two towers": (lambda: TwoTowerAlexNet(1000), 227, 12, 0),
    "torchvision's alexnet": (lambda: torchvision.models.alexnet(), 224, 12, 0),
    "cifar_resnet of 20 layers": (lambda: cifar_resnet(20, 10), 32, 22, 9),
    "plain, 20 layers": (lambda: cifar_resnet(20, 10, residual=False), 32, 22, 0),
    "cifar_resnet of 56 layers": (lambda: cifar_resnet(56, 10), 32, 58, 27),
    "resnet18": (lambda: resnet18(1000), 224, 21, 8),
    "resnet18 for small images": (lambda: resnet18(10, small_images=True), 64, 20, 8),
    "resnet34": (lambda: resnet34(1000), 224, 37, 16),
    "resnet50": (lambda: resnet50(1000), 224, 53, 16),
    "resnet50 for small images": (lambda: resnet50(10, small_images=True), 64, 52, 16),
}


def on_meta(name):
    make_model, size, *numbers = NETWORKS[name]
    with torch.device("meta"):
        return make_model(), (3, size, size), *numbers


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_has_a_box_and_a_shortcut_an_arc(name):
    model, shape, num_boxes, num_arcs = on_meta(name)
    ax = plot_architecture(model, shape)
    assert sum(isinstance(patch, Polygon) for patch in ax.patches) == 3 * num_boxes  # front, top and side
    assert sum(isinstance(patch, PathPatch) for patch in ax.patches) == num_arcs
    assert len([line for line in facts(plot_architecture(model, shape)).splitlines() if "shortcut" not in line]) == (
        num_boxes + 1
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_overlaps_and_nothing_is_cut_off(name):
    model, shape, *_ = on_meta(name)
    ax = plot_architecture(model, shape)
    drawn = ax.figure
    assert drawn.get_size_inches()[0] == pytest.approx(9.6)
    drawn.canvas.draw()
    words = [text for text in ax.texts if text.get_text()]
    assert all(text.get_fontsize() >= 10 for text in words)
    extents = [text.get_window_extent() for text in words]
    page = drawn.bbox
    for text, extent in zip(words, extents, strict=True):
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text
        assert page.y0 <= extent.y0 and extent.y1 <= page.y1, text
    for (first, one), (second, other) in itertools.combinations(zip(words, extents, strict=True), 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 0 or down <= 2, f"{first.get_text()} and {second.get_text()}"  # lines of text touch
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, Polygon)]
    for box, (text, extent) in itertools.product(boxes, zip(words, extents, strict=True)):
        assert not (
            min(box.x1, extent.x1) > max(box.x0, extent.x0) and min(box.y1, extent.y1) > max(box.y0, extent.y0) + 2
        ), text


def test_the_diagram_says_what_a_layer_does():
    model, shape, *_ = on_meta("two towers")
    words = [text.get_text() for text in plot_architecture(model, shape).texts]
    assert {"conv1", "11×11", "stride 4", "96", "55×55", "2 groups", "fc8", "1000"} <= set(words)
    lines = facts(plot_architecture(model, shape)).splitlines()
    assert lines[0].startswith("TwoTowerAlexNet: 8 layers with weights, 60,965,224 parameters")
    assert lines[1:3] == ["image: 3 of 227×227", "conv1: 11×11, stride 4, 96 of 55×55"]
    assert lines[4] == "conv2: 5×5, 2 groups, 256 of 27×27"
    assert lines[-1] == "fc8: 1000 numbers"


def test_a_shortcut_that_changes_the_shape_says_how():
    assert shortcut_words("cifar_resnet of 20 layers") == ["zeros"] * 2
    assert shortcut_words("resnet18") == ["1×1, stride 2"] * 3
    assert shortcut_words("resnet50") == ["1×1"] + ["1×1, stride 2"] * 3
    model, shape, *_ = on_meta("resnet18")
    lines = facts(plot_architecture(model, shape)).splitlines()
    assert "    a shortcut past layer1.0.conv1 to layer1.0.conv2" in lines
    assert "    a shortcut past layer2.0.conv1 to layer2.0.conv2 (1×1, stride 2)" in lines


def shortcut_words(name: str) -> list[str]:
    model, shape, *_ = on_meta(name)
    arcs = [patch for patch in plot_architecture(model, shape).patches if isinstance(patch, PathPatch)]
    ax = arcs[0].axes
    dashed = [arc for arc in arcs if arc.get_linestyle() != "-"]
    words = [text.get_text() for text in ax.texts if text.get_va() == "bottom"]
    assert len(dashed) == len(words)
    return words


def test_a_box_is_as_high_as_its_maps_and_as_wide_as_it_has_channels():
    ax = plot_architecture(*on_meta("AlexNet")[:2])
    fronts = [patch.get_xy() for patch in ax.patches if isinstance(patch, Polygon)][::3]
    heights = [corners[:, 1].max() - corners[:, 1].min() for corners in fronts]
    widths = [corners[:, 0].max() - corners[:, 0].min() for corners in fronts]
    assert heights[:3] == sorted(heights[:3], reverse=True)  # image, conv1, pool1: 227, 56, 27
    assert heights[4] == heights[5] == heights[6] == heights[7] > heights[8]  # 13 pixels, then 6
    assert widths[0] < widths[1] < widths[3]  # 3, 64 and 192 channels


def test_a_layer_that_is_used_twice_has_a_box_for_each_under_its_own_name():
    pool = torch.nn.MaxPool2d(kernel_size=2)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, kernel_size=5), pool, torch.nn.ReLU(), pool)
    assert facts(plot_architecture(model, (3, 64, 64))).splitlines()[2:] == [
        "0: 5×5, 8 of 60×60",
        "1: 2×2, stride 2, 8 of 30×30",
        "1: 2×2, stride 2, 8 of 15×15",
    ]
