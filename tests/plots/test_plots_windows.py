import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from cnnlesson.plots import description, plot_convolution, plot_receptive_field


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def facts(axes) -> str:
    return description(axes).text


SETTINGS = [(7, 3, 2, 1), (224, 11, 4, 0), (227, 11, 4, 2), (10, 2, 3, 0), (5, 5, 1, 0), (4, 1, 1, 0), (3, 5, 2, 2)]


@pytest.mark.parametrize("size, kernel, stride, padding", SETTINGS)
def test_a_window_sees_the_pixels_that_torchs_convolution_depends_on(size, kernel, stride, padding):
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    output = nn.functional.conv2d(image, torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding)
    out_size = output.shape[2]
    position = out_size**2 - 1
    output.flatten()[position].backward(retain_graph=True)
    rows = image.grad[0, 0].any(dim=1).nonzero().flatten().tolist()
    text = facts(plot_convolution(size, kernel, stride, padding, position))
    assert text.startswith(f"output {out_size}×{out_size}: ")
    span = f"{rows[0]} to {rows[-1]}" if len(rows) > 1 else f"{rows[0]}"
    assert f"row {out_size - 1} and column {out_size - 1} of the output, sees rows {span} and" in text

    image.grad = None
    output.sum().backward()
    unseen = int((image.grad == 0).sum())
    assert (f"not covered by any window: {unseen:,} of {size**2:,} pixels, rows and columns" in text) == (unseen > 0)
    assert ("every pixel is covered by a window" in text) == (unseen == 0)


def test_a_kernel_of_11_with_stride_4_does_not_cover_the_last_row_and_column_of_224_pixels():
    before, after = plot_convolution(224, 11, 4, 0)
    assert before.get_xlabel() == "dark: not covered, rows and columns 223"
    assert before.get_title() == "input 224×224" and after.get_title() == "output 54×54"
    assert facts(plot_convolution(224, 11, 4, 0)).splitlines() == [
        "output 54×54: (224 - 11) / 4 + 1 = 54, rounded down from 54.25",
        "not covered by any window: 447 of 50,176 pixels, rows and columns 223",
        "position 0, row 0 and column 0 of the output, sees rows 0 to 10 and columns 0 to 10 of the input",
    ]


def test_the_window_and_its_cell_are_at_the_position():
    before, after = plot_convolution(7, 3, 2, 1, position=6)  # row 1, column 2 of 4×4
    window, cell = before.patches[-1], [patch for patch in after.patches if hasattr(patch, "get_xy")][-1]
    assert (window.get_xy(), window.get_width()) == ((3, 1), 3)
    assert (cell.get_xy(), cell.get_width()) == ((2, 1), 1)
    assert before.get_xlim() == (-1, 8) and before.get_ylim() == (8, -1)  # with room for the padding


def test_a_grid_of_many_cells_has_no_lines():
    for size, num_lines in ((38, 1), (39, 0)):
        (cells,) = plot_convolution(size, 3, 1, 1)[0].collections
        assert len(cells.get_edgecolor()) == num_lines  # one colour, for all lines


def test_uncovered_pixels_are_dark_and_padding_has_no_colour():
    (cells,) = plot_convolution(5, 1, 2, 1)[0].collections
    covered = torch.tensor([0.0, 1, 0, 1, 0])  # the windows are at -1, 1, 3 and 5
    assert cells.get_array()[1:-1, 1:-1].tolist() == torch.outer(covered, covered).tolist()
    assert cells.get_array().mask.sum() == 7**2 - 5**2
    assert cells.to_rgba(0) < cells.to_rgba(1)


def test_a_window_that_covers_only_padding_sees_no_pixel():
    assert facts(plot_convolution(3, 2, 1, 2)).endswith("sees no pixel of the input, and 4 cells of padding")


@pytest.mark.parametrize(
    "values, message",
    [
        (
            (3, 5, 1, 0),
            "a kernel of 5 pixels does not fit into 3 pixels: use a smaller kernel, .* padding of at least 1$",
        ),
        ((3, 7, 1, 1), "a kernel of 7 pixels does not fit into 3 pixels with padding 1 on each side: .* at least 2$"),
        ((0, 1, 1, 0), "size must be at least 1, got 0"),
        ((5, 0, 1, 0), "kernel must be at least 1, got 0"),
        ((5, 1, 0, 0), "stride must be at least 1, got 0"),
        ((5, 1, 1, -1), "padding must be at least 0, got -1"),
        ((5, 3, 1, 0, 9), "position must be from 0 to 8, the last of the output, got 9"),
    ],
)
def test_what_does_not_fit_is_reported_in_one_line(values, message):
    with pytest.raises(ValueError, match=message):
        plot_convolution(*values)


def test_a_receptive_field_may_reach_beyond_the_image():
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    activation = torch.arange(12.0).view(3, 4)
    before, after = plot_receptive_field(image, (-8, 30, 12, 50), activation, 1, 3)
    assert before.get_xlim() == (0, 50) and before.get_ylim() == (32, -8)
    assert {(patch.get_xy(), patch.get_width()) for patch in before.patches} == {((30, -8), 20)}
    assert {(patch.get_xy(), patch.get_width()) for patch in after.patches} == {((3, 1), 1)}
    assert facts(plot_receptive_field(image, (-8, 30, 12, 50), activation, 1, 3)).splitlines() == [
        "row 1, column 3 of the 3×4 map has the value 7",
        "its receptive field is 20×20 pixels, rows -8 to 11 and columns 30 to 49: 14.1% of the image",
    ]
    with pytest.raises(ValueError, match="3 rows and 4 columns, counted from 0: there is no row 3, column 0"):
        plot_receptive_field(image, (0, 0, 1, 1), activation, 3, 0)
