"""The figures of the lesson.

Each function draws on `ax` (or `axes`, one per panel), or on a new figure, and returns what it drew on. `show` displays
that, and `description` returns its alt text and its facts as text: `description(plot_grid(results)).text`. What all
figures share is in figures.py: the look (lesson.mplstyle), alt text, `show`.
"""

from cnnlesson.plots.architecture import plot_architecture, plot_layers
from cnnlesson.plots.depth import (
    depth_curves_text,
    plot_depth,
    plot_depth_curves,
    plot_gradient_norms,
    plot_residual_sizes,
    plot_signals,
)
from cnnlesson.plots.figures import WIDE, blank, description, save_figure, show
from cnnlesson.plots.mistakes import plot_confusion, plot_most_wrong
from cnnlesson.plots.pictures import plot_feature_maps, plot_filters, plot_images, plot_leaks
from cnnlesson.plots.splits import plot_class_balance, plot_fold_balance, plot_folds
from cnnlesson.plots.trials import plot_grid, plot_history, plot_trials, plot_weight_decay
from cnnlesson.plots.windows import plot_convolution, plot_receptive_field

__all__ = [
    "WIDE",
    "blank",
    "depth_curves_text",
    "description",
    "plot_architecture",
    "plot_class_balance",
    "plot_confusion",
    "plot_convolution",
    "plot_depth",
    "plot_depth_curves",
    "plot_feature_maps",
    "plot_filters",
    "plot_fold_balance",
    "plot_folds",
    "plot_gradient_norms",
    "plot_grid",
    "plot_history",
    "plot_images",
    "plot_layers",
    "plot_leaks",
    "plot_most_wrong",
    "plot_receptive_field",
    "plot_residual_sizes",
    "plot_signals",
    "plot_trials",
    "plot_weight_decay",
    "save_figure",
    "show",
]
