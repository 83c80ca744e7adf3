"""What all figures share: the look, alt text, the same facts as text, and `show`, which displays all of it.

A figure function draws on `ax` (or `axes`), or on a new figure. `@lesson_style` applies the look of the lesson, and
`describe` keeps a description of the figure with the axes that the function returns.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator
from matplotlib.typing import ColorType

from cnnlesson.runtime.atomic import atomic_write

# Colours of Okabe and Ito's palette ("Color universal design", 2008), which colour-blind readers can tell apart. Some
# are darkened: lines stand out from white, and the colours of one figure are far enough from each other for every kind
# of colour blindness. tests/plots/test_palette.py measures both.
TRAIN_COLOUR = "#C48700"  # from orange, #E69F00
VAL_COLOUR = "#00649C"  # from blue, #0072B2
TEST_COLOUR = "#009E73"  # bluish green
PLAIN_COLOUR = "#D55E00"  # vermilion
RESIDUAL_COLOUR = VAL_COLOUR
MARK_COLOUR = "#D55E00"  # of the place that a figure points at
# For lines without a colour of their own; from bluish green, orange, sky blue and reddish purple.
SERIES_COLOURS = ("#005B42", "#C48700", "#4999C6", "#945879", "#000000")

WIDE = (9.6, 4.2)  # inches, for figures of two panels

_STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("lesson.mplstyle"), use_default_template=False)
lesson_style = matplotlib.rc_context(_STYLE)  # a decorator

_LABEL_SIZE = 11  # points
_PIXELS_PER_INCH = 96  # as in CSS, so that a point in the figure is a point on the page
_SHARPNESS = 1.5  # image pixels per page pixel, for fine screens and projectors


class Description(NamedTuple):
    """What a figure shows, for readers who cannot see it."""

    alt: str  # what it is, in one sentence
    text: str  # its facts


_descriptions: WeakKeyDictionary[Axes, Description] = WeakKeyDictionary()


def describe(axes: Any, alt: str, facts: str) -> Any:
    """Keep what the figure is, in one sentence, and its facts with the axes that show it, and return `axes`.

    The facts are part of the alt text if they are one short line. Dollar signs in a text, such as the name of a class,
    are drawn as they are: they do not start a formula.
    """
    for ax in _list(axes):
        for text in ax.findobj(Text):
            if "$" in text.get_text():
                text.set_parse_math(False)
    is_short = "\n" not in facts and len(facts) <= 150
    _descriptions[_list(axes)[0]] = Description(f"{alt}: {facts}" if is_short else alt, facts)
    return axes


def description(shown: Axes | Iterable[Axes]) -> Description:
    """The alt text and the facts of everything that figure functions have drawn on these axes."""
    descriptions = [_descriptions[ax] for ax in _list(shown) if ax in _descriptions]
    return Description(". ".join(part.alt for part in descriptions), "\n".join(part.text for part in descriptions))


def show(shown: Axes | Iterable[Axes]) -> None:
    """Display a figure in a notebook, with its alt text and, folded below it, its facts as text; then close it."""
    from IPython.display import display

    display(bundle(shown), raw=True)


def bundle(shown: Axes | Iterable[Axes]) -> dict[str, str]:
    """What a notebook displays, as HTML with an image and as plain text. The figure is closed.

    JupyterLab passes alt text to a screen reader only from HTML, so the picture is embedded in HTML.
    """
    alt, text = description(shown)
    facts = f"<details><summary>As text</summary><pre>{html.escape(text)}</pre></details>"
    return {"text/html": f"<div>{picture(shown, alt)}{facts}</div>", "text/plain": f"{alt}\n{text}"}


def picture(shown: Axes | Iterable[Axes], alt: str) -> str:
    """An `<img>` that contains the figure itself, so that it needs no file. The figure is closed."""
    drawn = _list(shown)[0].figure
    png = io.BytesIO()
    drawn.savefig(png, format="png", dpi=_SHARPNESS * _PIXELS_PER_INCH)
    width, height = (round(_PIXELS_PER_INCH * size) for size in drawn.get_size_inches())
    plt.close(drawn)  # or the notebook would show it a second time
    source = base64.b64encode(png.getvalue()).decode()
    return (
        f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" style="max-width: 100%; height: auto" '
        f'src="data:image/png;base64,{source}">'
    )


def save_figure(drawn: Figure, path: Path) -> None:
    """Write `drawn` as a PNG file; an earlier file at `path` stays until the new one is complete."""
    with atomic_write(path) as unfinished:
        drawn.savefig(unfinished, format="png", dpi=150)


def new_axes(size: tuple[float, float] | None = None) -> Axes:
    """The axes of a new figure, which a notebook displays by itself at the end of the cell."""
    return plt.subplots(figsize=size)[1]


@lesson_style
def blank(rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **options) -> Any:
    """Axes in the look of the lesson, of a figure that nothing displays by itself; `options` as in `plt.subplots`."""
    return Figure(figsize=size).subplots(rows, columns, **options)


@lesson_style
def blank_mosaic(mosaic: Sequence[Sequence[str]], size: tuple[float, float], **options) -> dict[str, Axes]:
    """Like `blank`, with the axes by their names in `mosaic`; see `plt.subplot_mosaic`."""
    return Figure(figsize=size).subplot_mosaic(mosaic, **options)


def label_ends(ax: Axes) -> None:
    """Write the label of each line of `ax` to the right of its last point, instead of a legend.

    Labels of ends that are close together are stacked in the order of the ends. Labels of lines that end before the
    others are raised, so that these do not cross them. Draw all lines first, also those of axes that share the limits.
    """
    ax.get_xlim(), ax.get_ylim()  # updates the limits, which the transforms need
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = []
    for line in ax.lines:
        points = line.get_xydata()
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and not line.get_label().startswith("_"):
            x, y = to_axes.transform(points[-1])
            ends.append((round(x, 2), y, line))
    height = 72 * ax.figure.get_size_inches()[1] * ax.get_position().height  # in points, about
    line_height = 1.2 * _LABEL_SIZE / height
    rightmost = max((x for x, _, _ in ends), default=0)
    style = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center", "fontsize": _LABEL_SIZE}
    for x in {x for x, _, _ in ends}:
        at_x = sorted([(y, line) for other, y, line in ends if other == x], key=lambda end: end[0])
        lift = line_height if x < rightmost else 0
        for (_, line), y in zip(at_x, _apart([y + lift for y, _ in at_x], line_height), strict=True):
            ax.annotate(line.get_label(), (x, y), (8, 0), color=as_type(line.get_color()), **style)


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, since the exponents of powers of ten would be too small to read.

    If its limits are less than two powers of ten apart, 2 and 5 times each power are labelled too. Call it last.
    """
    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _apart(centres: list[float], height: float) -> list[float]:
    """The increasing `centres` of labels of this height, moved until they do not overlap, between 0 and 1."""
    moved, lowest = [], height / 2
    for centre in centres:
        moved.append(max(centre, lowest))
        lowest = moved[-1] + height
    highest = 1.0
    for place in reversed(range(len(moved))):  # labels that were pushed beyond the top move down again
        moved[place] = min(moved[place], highest)
        highest = moved[place] - height
    return moved


def as_type(colour: ColorType) -> str:
    """The colour, darkened until text in it is readable on white: a contrast of 4.5 (WCAG 2, 1.4.3)."""
    while contrast(colour, "white") < 4.5:
        colour = [0.95 * part for part in to_rgb(colour)]
    return to_hex(colour)


def readable_on(colour: ColorType) -> str:
    """Black or white, whichever stands out more from `colour`."""
    return max(("black", "white"), key=lambda type_colour: contrast(type_colour, colour))


def contrast(first: ColorType, second: ColorType) -> float:
    """The contrast ratio of WCAG 2, from 1 for equal luminance to 21 for black and white."""
    darker, lighter = sorted([_luminance(first), _luminance(second)])
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: ColorType) -> float:
    """The relative luminance of WCAG 2, from 0 for black to 1 for white."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def short_name(name: str) -> str:
    """The name of a class in at most 18 characters: the first synonym of a longer one, or its beginning."""
    if len(name) > 18:
        name = name.split(",")[0]
    return name if len(name) <= 18 else name[:17].rstrip() + "…"


def _list(axes: Axes | Iterable[Axes]) -> list[Axes]:
    return [axes] if isinstance(axes, Axes) else list(axes)
