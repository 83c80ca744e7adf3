import pandas as pd
import pytest
from matplotlib import pyplot as plt

from cnnlesson.plots import grid_text, history_text, plot_grid, plot_history, plot_weight_decay, weight_decay_text
from cnnlesson.training import Epoch


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def history():
    return [Epoch(k, 2.0, 0.1 * k, 2.1, 0.05 * k, 0.01, 10.0, 100.0, False) for k in (1, 2, 3)]


@pytest.fixture
def grid():
    rows = [(0.1, 16, 0.10, True), (0.1, 32, 0.25, False), (0.001, 16, 0.375, False), (0.001, 32, 0.5, False)]
    return pd.DataFrame(rows, columns=["lr", "batch_size", "val_accuracy", "diverged"])


@pytest.fixture
def decays():
    rows = [(0.05, 0.2, 0.19, True), (0.0, 0.9, 0.5, False), (0.0005, 0.8, 0.6, False)]
    return pd.DataFrame(rows, columns=["weight_decay", "train_accuracy", "val_accuracy", "diverged"])


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_history_shows_both_accuracies(history):
    ax = plot_history(history)
    assert [list(line.get_ydata()) for line in ax.lines] == [pytest.approx([10, 20, 30]), pytest.approx([5, 10, 15])]
    assert history_text(history).splitlines()[2] == "epoch 3: training 30.0%, validation 15.0%"


def test_the_heat_map_names_every_cell(grid):
    ax = plot_grid(grid)
    assert words(ax) == ["diverged", "25.0%", "37.5%", "50.0%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.1", "0.001"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["16", "32"]


def test_the_heat_maps_twin_has_the_same_facts(grid):
    header, high, low = grid_text(grid).splitlines()
    assert header.split() == ["lr", "\\", "batch", "size", "16", "32"]
    assert high.split() == ["0.1", "diverged", "25.0%"]
    assert low.split() == ["0.001", "37.5%", "50.0%"]


def test_a_grid_with_a_missing_or_with_only_diverged_points_can_be_drawn(grid):
    assert words(plot_grid(grid.iloc[1:]))[0] == ""
    assert words(plot_grid(grid.assign(diverged=True))) == ["diverged"] * 4


def test_weight_decay_shows_training_beside_validation(decays):
    ax = plot_weight_decay(decays)
    assert words(ax) == ["90.0", "80.0", "", "50.0", "60.0", "", "diverged"]
    assert weight_decay_text(decays).splitlines() == [
        "weight decay 0: training 90.0%, validation 50.0%",
        "weight decay 0.0005: training 80.0%, validation 60.0%",
        "weight decay 0.05: diverged",
    ]


@pytest.mark.parametrize("draw", ["history", "grid", "decays"])
def test_figures_draw_on_the_axes_they_are_given(draw, history, grid, decays):
    _, ax = plt.subplots()
    function, argument = {
        "history": (plot_history, history),
        "grid": (plot_grid, grid),
        "decays": (plot_weight_decay, decays),
    }[draw]
    assert function(argument, ax) is ax
