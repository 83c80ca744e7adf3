"""Figures of what depth does: errors, the signals in each layer, and the size of what each block adds."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cnnlesson.plots.figures import (
    PLAIN_COLOUR,
    RESIDUAL_COLOUR,
    SERIES_COLOURS,
    WIDE,
    describe,
    label_ends,
    label_log_axis,
    lesson_style,
    new_axes,
)

_COLOURS = {"plain": PLAIN_COLOUR, "residual": RESIDUAL_COLOUR}
_KINDS = {False: "plain", True: "residual"}  # by the column "residual" of a table


@lesson_style
def plot_depth_curves(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Training error (dashed) and test error (solid) by epoch, for networks of several depths.

    Plain networks are on the left, residual ones on the right; a line is the mean of its seeds, and its label
    counts those that diverged before its end.

    Args:
        results: a row per network and epoch, with the columns depth, residual, seed, epoch, train_error and test_error
            (shares between 0 and 1), such as `cnnlesson.reference.load("cifar10_depth").table`.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE, sharey=True)[1]
    errors = _mean_errors(results)
    depths = sorted(results["depth"].unique())
    colours = {depth: SERIES_COLOURS[place % len(SERIES_COLOURS)] for place, depth in enumerate(depths)}
    for ax, kind in zip(axes, _COLOURS, strict=True):
        for depth, curve in errors[errors["kind"] == kind].groupby("depth"):
            style = {"color": colours[depth], "marker": "o" if len(curve) == 1 else ""}  # one epoch is no line
            ax.plot(curve["epoch"], curve["train_error"], "--", **style)
            label = f"{depth} layers{curve['note'].iloc[-1]}"
            ax.plot(curve["epoch"], curve["test_error"], "-", label=label, **style)
        ax.set(title=kind, xlabel="epoch", ylabel="error (%)", xlim=(0.5, errors["epoch"].max() + 0.5))
        ax.set_ylim(0, 1.05 * errors[["train_error", "test_error"]].max(axis=None))
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        label_ends(ax)
    handles = [Line2D([], [], color="grey", label="test"), Line2D([], [], color="grey", ls="--", label="training")]
    axes[1].legend(handles=handles)
    alt = "Curves of training and test error by epoch, plain networks left and residual ones right"
    return describe(axes, alt, depth_curves_text(results))


@lesson_style
def plot_depth(results: pd.DataFrame, published: dict[int, float], ax: Axes | None = None) -> Axes:
    """Training and test error after the last epoch by depth, plain and residual, with published test errors.

    Args:
        results: as in `plot_depth_curves`.
        published: test error by depth of residual networks: `cnnlesson.experiments.depth.PUBLISHED_TEST_ERROR`.
    """
    ax = ax or new_axes(WIDE)
    last = _last_errors(results)
    for kind, colour in _COLOURS.items():
        errors = last[last["kind"] == kind]
        for column, style, name in (("train_error", "o--", "training"), ("test_error", "o-", "test")):
            ax.plot(errors["depth"], errors[column], style, color=colour, label=f"{kind}, {name}")
    errors = [100 * error for error in published.values()]
    ax.plot(published.keys(), errors, "D:", color="grey", markerfacecolor="white", label="_published")
    text = "residual, test, as published (He et al., 2015; not measured here)"
    style = {"textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 11}
    ax.annotate(text, (max(published), errors[-1]), (0, -9), **style)
    ax.set_xticks(sorted({*last["depth"], *published}))
    ax.set(xlabel="depth (layers)", ylabel="error (%)", ylim=(0, None))
    label_ends(ax)
    alt = "Training and test error by depth, plain and residual, with published test errors"
    published_text = ", ".join(f"{depth} layers {error:.2%}" for depth, error in published.items())
    facts = f"{depth_curves_text(results)}\nresidual, test error as published (He et al., 2015): {published_text}"
    return describe(ax, alt, facts)


def _mean_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Training and test error in percent by kind, depth and epoch: the mean over the seeds, and a note on lost ones."""
    kinds = results["residual"].map(_KINDS).rename("kind")
    groups = results.groupby([kinds, "depth", "epoch"])
    errors = (100 * groups[["train_error", "test_error"]].mean()).assign(seeds=groups.size()).reset_index()
    # Only a network that diverges ends before the others.
    lost = errors.groupby(["kind", "depth"])["seeds"].transform("max") - errors["seeds"]
    notes = [f", {n} of {n + others} diverged" if n else "" for n, others in zip(lost, errors["seeds"], strict=True)]
    return errors.assign(note=notes)


def _last_errors(results: pd.DataFrame) -> pd.DataFrame:
    return _mean_errors(results).groupby(["kind", "depth"]).tail(1)


def depth_curves_text(results: pd.DataFrame) -> str:
    """The last point of each curve of `plot_depth_curves`, one line per network."""
    return "\n".join(
        f"{row.kind}, {row.depth} layers, epoch {row.epoch}: "
        f"training error {row.train_error:.2f}%, test error {row.test_error:.2f}%{row.note}"
        for row in _last_errors(results).itertuples()
    )


@lesson_style
def plot_signals(signals: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The size of the activations (left) and of the gradients (right) in each layer of one or more networks.

    Args:
        signals: a row per network and layer, from input to output, with the columns network ("plain" or "residual"),
            activation and gradient, from `cnnlesson.signals.activation_sizes` and `gradient_norms`.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=(9.6, 3.6))[1]
    axes[0].set_title("size of the activations")
    axes[1].set_title("norm of the gradient")
    facts = []
    for network, sizes in signals.groupby("network", sort=False):
        for ax, column in zip(axes, ("activation", "gradient"), strict=True):
            sizes_text = _plot_by_layer(ax, network, sizes[column])
            facts.append(f"{network}, {len(sizes)} layers, {column}s: {sizes_text}")
    _label_by_layer(axes)
    alt = "The size of the activations and of the gradients in each layer, from input to output"
    return describe(axes, alt, "\n".join(facts))


@lesson_style
def plot_gradient_norms(gradients: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The norm of the gradient in each layer of the deepest plain and residual network, from input to output.

    Before training on the left, after one epoch on the right.

    Args:
        gradients: a row per network, epoch and layer, with the columns depth, residual, seed, epochs_done, layer and
            norm, such as `cnnlesson.reference.load("cifar10_gradients").table`; of several seeds the first is drawn.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE, sharey=True)[1]
    depth, seed = gradients["depth"].max(), gradients["seed"].min()
    deepest = gradients[(gradients["depth"] == depth) & (gradients["seed"] == seed)]
    facts = []
    for ax, epochs_done, when in zip(axes, (0, 1), ("before training", "after one epoch"), strict=True):
        ax.set(title=f"{when}, {depth} layers", ylabel="norm of the gradient")
        for is_residual, curve in deepest[deepest["epochs_done"] == epochs_done].groupby("residual"):
            sizes_text = _plot_by_layer(ax, _KINDS[is_residual], curve["norm"])
            facts.append(f"{_KINDS[is_residual]}, {depth} layers, {when}: {sizes_text}")
    _label_by_layer(axes)
    alt = "The norm of the gradient in each layer of a plain and of a residual network"
    return describe(axes, alt, "\n".join(facts))


def _plot_by_layer(ax: Axes, kind: str, sizes: pd.Series) -> str:
    """Draw the curve of a network, and return its ends and its range as text."""
    ax.semilogy(range(1, len(sizes) + 1), sizes, ".-", color=_COLOURS[kind], label=kind)
    return (
        f"first layer {sizes.iloc[0]:.2g}, last layer {sizes.iloc[-1]:.2g}, smallest {sizes.min():.2g}, "
        f"largest {sizes.max():.2g}"
    )


def _label_by_layer(axes: Iterable[Axes]) -> None:
    """Label axes and curves, when all panels are drawn."""
    for ax in axes:
        ax.set_xlabel("layer, from input to output")
        ax.xaxis.get_major_locator().set_params(integer=True)
        label_log_axis(ax.yaxis)
        label_ends(ax)


@lesson_style
def plot_residual_sizes(sizes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The sizes of x and of F(x), block by block through a residual network.

    Args:
        sizes: from `cnnlesson.signals.residual_sizes`.
    """
    ax = ax or new_axes(WIDE)
    places = range(1, len(sizes) + 1)
    ax.plot(places, sizes["x_size"], "o-", color="grey", label="x (shortcut)")
    ax.plot(places, sizes["residual_size"], "o-", color=RESIDUAL_COLOUR, label="F(x) (block)")
    stages = sizes["block"].str.split(".").str[0].tolist()
    for place in places[1:]:
        if stages[place - 1] != stages[place - 2]:
            ax.axvline(place - 0.5, color="lightgrey", zorder=0)  # here the channels double
    ax.set_xlabel("residual block, from input to output\n(grey lines: the number of channels doubles)")
    ax.set(ylabel="root mean square", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    label_ends(ax)
    facts = [
        f"{row.block}: x {row.x_size:.2f}, F(x) {row.residual_size:.2f}, ratio {row.residual_size / row.x_size:.2f}"
        for row in sizes.itertuples()
    ]
    return describe(ax, "The sizes of x and of F(x), block by block", "\n".join(facts))
