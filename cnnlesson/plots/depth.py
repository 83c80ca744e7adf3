"""Figures of what depth does: errors, gradients, and the size of what each block adds."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cnnlesson.plots.figures import (
    PLAIN_COLOUR,
    RESIDUAL_COLOUR,
    SERIES_COLOURS,
    WIDE,
    figure,
    label_ends,
    label_log_axis,
    new_axes,
)
from cnnlesson.plots.signals import sizes_in_words


def depth_curves_text(results: pd.DataFrame) -> str:
    """Where the curves of `plot_depth_curves` end, a line a network."""
    return "\n".join(
        f"{_kind(row.residual)}, {row.depth} layers, epoch {row.epoch}: "
        f"training error {row.train_error:.2%}, test error {row.test_error:.2%}"
        for row in _last_errors(results).itertuples()
    )


@figure(
    "Curves of training and test error over the epochs, plain left and residual right",
    depth_curves_text,
)
def plot_depth_curves(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Training error (dashed) and test error (solid) over the epochs, for networks of several depths.

    Plain networks are on the left, residual ones on the right; a line is the mean of its seeds.

    Args:
        results: a row a network and epoch, with the columns depth, residual, seed, epoch, train_error and test_error
            (shares between 0 and 1), such as `cnnlesson.reference.load("cifar10_depth").table`.
        axes: two, side by side.
    """
    axes = axes if axes is not None else _new_pair_of_axes()
    errors = _mean_errors(results)
    depths = sorted(results["depth"].unique())
    colours = {depth: SERIES_COLOURS[place % len(SERIES_COLOURS)] for place, depth in enumerate(depths)}
    for ax, is_residual in zip(axes, (False, True), strict=True):
        for (residual, depth), curve in errors.groupby(["residual", "depth"]):
            if residual == is_residual:
                style = {"color": colours[depth], "marker": "o" if len(curve) == 1 else ""}  # one epoch is no line
                ax.plot(curve["epoch"], 100 * curve["train_error"], "--", **style)
                ax.plot(curve["epoch"], 100 * curve["test_error"], "-", label=f"{depth} layers", **style)
        ax.set_title("residual" if is_residual else "plain")
        ax.set_xlabel("epoch")
        ax.set_ylabel("error (%)")
        ax.set_ylim(0, 105 * errors[["train_error", "test_error"]].max(axis=None))
        ax.set_xlim(0.5, errors["epoch"].max() + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        label_ends(ax)
    handles = [Line2D([], [], color="grey", label="test"), Line2D([], [], color="grey", ls="--", label="training")]
    axes[1].legend(handles=handles)
    return axes


def depth_text(results: pd.DataFrame, published: dict[int, float]) -> str:
    """The facts of `plot_depth`: a line a network, and one for the published errors."""
    errors = ", ".join(f"{depth} layers {error:.2%}" for depth, error in published.items())
    return f"{depth_curves_text(results)}\nresidual, test error as published (He et al., 2015): {errors}"


@figure("Training and test error over depth, plain and residual, beside published test errors", depth_text)
def plot_depth(results: pd.DataFrame, published: dict[int, float], ax: Axes | None = None) -> Axes:
    """Training and test error after the last epoch over depth, plain and residual, beside published test errors.

    Args:
        results: as `plot_depth_curves` takes them.
        published: test error by depth of residual networks: `cnnlesson.experiments.depth.PUBLISHED_TEST_ERROR`.
    """
    ax = ax or new_axes(WIDE)
    last = _last_errors(results)
    for is_residual, colour in ((False, PLAIN_COLOUR), (True, RESIDUAL_COLOUR)):
        errors = last[last["residual"] == is_residual]
        for column, style, name in (("train_error", "o--", "training"), ("test_error", "o-", "test")):
            ax.plot(errors["depth"], 100 * errors[column], style, color=colour, label=f"{_kind(is_residual)}, {name}")
    errors = [100 * error for error in published.values()]
    ax.plot(published.keys(), errors, "D:", color="grey", markerfacecolor="white", label="_published")
    ax.annotate(
        "residual, test, as published (He et al., 2015; not measured here)",
        (max(published), errors[-1]),
        (0, -9),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=11,
    )
    ax.set_xticks(sorted({*last["depth"], *published}))
    ax.set_xlabel("depth (layers)")
    ax.set_ylabel("error (%)")
    ax.set_ylim(bottom=0)
    label_ends(ax)
    return ax


def gradient_norms_text(gradients: pd.DataFrame) -> str:
    """The facts of `plot_gradient_norms` in short, a line a curve."""
    lines = []
    for (residual, depth, epochs_done), curve in _deepest(gradients).groupby(["residual", "depth", "epochs_done"]):
        if epochs_done > 1:
            continue
        when = "after one epoch" if epochs_done else "before training"
        lines.append(f"{_kind(residual)}, {depth} layers, {when}: {sizes_in_words(curve['norm'])}")
    return "\n".join(lines)


@figure("The norm of the gradient in each layer of a plain and of a residual network", gradient_norms_text)
def plot_gradient_norms(gradients: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The norm of the gradient in each layer of the deepest plain and residual network, from the images to the logits.

    On the left before training, on the right after one epoch.

    Args:
        gradients: a row a network, epoch and layer, with the columns depth, residual, seed, epochs_done, layer and
            norm, such as `cnnlesson.reference.load("cifar10_gradients").table`; of several seeds the first is drawn.
        axes: two, side by side.
    """
    axes = axes if axes is not None else _new_pair_of_axes()
    gradients = _deepest(gradients)
    for ax, epochs_done, title in zip(axes, (0, 1), ("at initialisation", "after one epoch"), strict=True):
        for is_residual, colour in ((False, PLAIN_COLOUR), (True, RESIDUAL_COLOUR)):
            norms = gradients[(gradients["residual"] == is_residual) & (gradients["epochs_done"] == epochs_done)][
                "norm"
            ]
            ax.semilogy(range(1, len(norms) + 1), norms, ".-", color=colour, label=_kind(is_residual))
        ax.set_title(f"{title}, {gradients['depth'].max()} layers")
        ax.set_xlabel("layer, from the images on")
        ax.set_ylabel("norm of the gradient")
    for ax in axes:
        label_log_axis(ax.yaxis)
        label_ends(ax)
    return axes


def residual_sizes_text(sizes: pd.DataFrame) -> str:
    """The facts of `plot_residual_sizes`, a line a block."""
    return "\n".join(
        f"{row.block}: x {row.x_size:.2f}, F(x) {row.residual_size:.2f}, ratio {row.residual_size / row.x_size:.2f}"
        for row in sizes.itertuples()
    )


@figure("The size of F(x) beside that of x, block by block", residual_sizes_text)
def plot_residual_sizes(sizes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The size of F(x) beside that of x, block by block through a residual network.

    Args:
        sizes: from `cnnlesson.signals.residual_sizes`.
    """
    ax = ax or new_axes(WIDE)
    places = range(1, len(sizes) + 1)
    ax.plot(places, sizes["x_size"], "o-", color="grey", label="x, what the\nshortcut carries")
    ax.plot(places, sizes["residual_size"], "o-", color=RESIDUAL_COLOUR, label="F(x), what the\nblock adds")
    stages = sizes["block"].str.split(".").str[0]
    for place in places[1:]:
        if stages.iloc[place - 1] != stages.iloc[place - 2]:
            ax.axvline(place - 0.5, color="lightgrey", zorder=0)  # here the channels double
    ax.set_xlabel("residual block, from the images on\n(grey lines: the channels double)")
    ax.set_ylabel("root mean square")
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    label_ends(ax)
    return ax


def _mean_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Training and test error by residual, depth and epoch: the mean over the seeds."""
    return results.groupby(["residual", "depth", "epoch"])[["train_error", "test_error"]].mean().reset_index()


def _last_errors(results: pd.DataFrame) -> pd.DataFrame:
    return _mean_errors(results).groupby(["residual", "depth"]).tail(1)


def _deepest(gradients: pd.DataFrame) -> pd.DataFrame:
    is_drawn = (gradients["depth"] == gradients["depth"].max()) & (gradients["seed"] == gradients["seed"].min())
    return gradients[is_drawn]


def _kind(is_residual: bool) -> str:
    return "residual" if is_residual else "plain"


def _new_pair_of_axes() -> Sequence[Axes]:
    _, axes = plt.subplots(1, 2, figsize=WIDE, sharey=True)
    return axes
