"""The colours of the figures, for colour-blind readers and on white."""

import itertools

import numpy as np
import pandas as pd
import pytest
from colorspacious import cspace_convert, deltaE
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from cnnlesson.plots import plot_grid
from cnnlesson.plots.figures import (
    MARK_COLOUR,
    PLAIN_COLOUR,
    RESIDUAL_COLOUR,
    SERIES_COLOURS,
    TEST_COLOUR,
    TRAIN_COLOUR,
    VAL_COLOUR,
    as_type,
    contrast,
    readable_on,
)

TOGETHER = {
    "the parts of a split": (TRAIN_COLOUR, VAL_COLOUR, TEST_COLOUR),
    "kinds of networks, and published results": (PLAIN_COLOUR, RESIDUAL_COLOUR, "grey"),
    "series": SERIES_COLOURS,
}
ALL_COLOURS = sorted({colour for colours in TOGETHER.values() for colour in colours} | {MARK_COLOUR})

# Colours one unit of CAM02-UCS apart are just distinguishable side by side. Petroff, "Accessible color sequences for
# data visualization" (2021, arXiv:2107.02270), requires far more of lines in a figure; the closest two of his six
# colours, which matplotlib ships as petroff6, are 15 apart by the measure below.
FAR_ENOUGH = 15


def seen_by(colour: str, vision: str) -> np.ndarray:
    """The colour as someone with this vision sees it, after Machado, Oliveira and Fernandes (2009), severity 100."""
    rgb = np.array(to_rgb(colour))
    if vision == "full":
        return rgb
    space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
    return np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1)


@pytest.mark.parametrize("vision", ["full", "protanomaly", "deuteranomaly", "tritanomaly"])
@pytest.mark.parametrize("colours", TOGETHER.values(), ids=TOGETHER.keys())
def test_colours_of_one_figure_stay_apart(colours, vision):
    for first, second in itertools.combinations(colours, 2):
        difference = deltaE(seen_by(first, vision), seen_by(second, vision), input_space="sRGB1")
        assert difference >= FAR_ENOUGH, f"{first} and {second}"


def test_the_measure_finds_red_and_green_alike_where_they_look_alike():
    red, green = "#C04000", "#608000"
    assert deltaE(to_rgb(red), to_rgb(green), input_space="sRGB1") > 2 * FAR_ENOUGH
    assert deltaE(seen_by(red, "deuteranomaly"), seen_by(green, "deuteranomaly"), input_space="sRGB1") < FAR_ENOUGH


@pytest.mark.parametrize("colour", ALL_COLOURS)
def test_lines_stand_out_from_white_and_their_labels_can_be_read(colour):
    assert contrast(colour, "white") >= 3  # WCAG 2.2, 1.4.11: graphical objects
    assert contrast(as_type(colour), "white") >= 4.5  # 1.4.3: text


def test_contrast_is_that_of_wcag():
    assert contrast("black", "white") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # a well-known example: just too light


def test_text_on_any_colour_can_be_read():
    for red, green, blue in itertools.product(np.linspace(0, 1, 9), repeat=3):
        assert contrast(readable_on((red, green, blue)), (red, green, blue)) >= 4.5


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_numbers_of_a_heat_map_can_be_read_on_their_cells(metric):
    rows = [(lr, size, lr * size, "completed") for lr in np.linspace(0.1, 1, 6) for size in range(1, 7)]
    rows[0] = (*rows[0][:3], "diverged")  # a hatched cell
    results = pd.DataFrame(rows, columns=["lr", "batch_size", metric, "state"])
    ax = plot_grid(results, metric=metric)
    image = ax.images[0]
    for text in ax.texts:
        column, row = text.get_position()
        value = np.ma.masked_invalid(image.get_array())[row, column]
        cell = ax.get_facecolor() if value is np.ma.masked else image.to_rgba(value)
        assert contrast(text.get_color(), cell) >= 4.5, f"{text.get_text()} on {to_hex(cell)}"
    plt.close("all")
