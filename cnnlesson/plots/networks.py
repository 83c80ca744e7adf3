"""Figures of networks: what each layer costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from cnnlesson.plots.figures import TRAIN_COLOUR, VAL_COLOUR, figure


def layers_text(table: pd.DataFrame) -> str:
    """The facts of `plot_layers` in short: what share of each total its largest layer has."""
    table = table.drop(index="total", errors="ignore")
    names = {"memory_kb": "memory", "params_k": "parameters", "flop_m": "multiply-adds"}
    return "\n".join(
        f"{name}: most in {table[column].idxmax()}, {table[column].max() / table[column].sum():.0%} of the total"
        for column, name in names.items()
    )


@figure("Bars of the memory, the parameters and the multiply-adds of each layer", layers_text)
def plot_layers(table: pd.DataFrame, axes: Sequence[Axes] | None = None, picked: str | None = None) -> Sequence[Axes]:
    """Memory, parameters and work of each layer, as bars: three panels.

    Args:
        table: from `cnnlesson.anatomy.layer_table`.
        axes: three, side by side.
        picked: the layer whose bars have another colour.
    """
    table = table.drop(index="total", errors="ignore")
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(9.6, 0.26 * len(table) + 1.2), sharey=True)
    titles = ("memory of the output (KB)", "parameters (thousands)", "multiply-adds (millions)")
    for ax, column, title in zip(axes, ("memory_kb", "params_k", "flop_m"), titles, strict=True):
        colours = [TRAIN_COLOUR if name == picked else VAL_COLOUR for name in table.index]
        bars = ax.barh(table.index, table[column], color=colours)
        ax.bar_label(bars, [_short(value) for value in table[column]], padding=2, fontsize=10)
        ax.set_title(title, fontsize=11)
        ax.margins(x=0.25, y=0.6 / len(table))
        ax.set_xticks([])
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0].invert_yaxis()  # sharey: the first layer on top in all three
    return axes


def _short(value: float) -> str:
    """The value with a decimal where it is small, and nothing where that is 0."""
    if value < 0.05:
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
