"""The figures of the lesson. Each draws on `ax`, or on a new figure, and returns it; each has a twin in words.

figures.py       what all have in common: the look (lesson.mplstyle), alt text, the facts in words, show
pictures.py      images with their classes, leaks, filters, feature maps
splits.py        the classes in each part, folds
mistakes.py      which classes are taken for which, and the images that are most wrong
signals.py       how large activations and gradients are, layer by layer
architecture.py  the diagram of a network
networks.py      what each layer costs
windows.py       one convolution on its grid, a receptive field on its image
trials.py        one training's history, and the trials of a grid
depth.py         what depth does
"""

from cnnlesson.plots.architecture import architecture_text, plot_architecture
from cnnlesson.plots.depth import (
    depth_curves_text,
    depth_text,
    gradient_norms_text,
    plot_depth,
    plot_depth_curves,
    plot_gradient_norms,
    plot_residual_sizes,
    residual_sizes_text,
)
from cnnlesson.plots.figures import WIDE, as_html, blank, describe_figure, save_figure, show
from cnnlesson.plots.mistakes import confusion_text, most_wrong_text, plot_confusion, plot_most_wrong
from cnnlesson.plots.networks import layers_text, plot_layers
from cnnlesson.plots.pictures import (
    feature_maps_text,
    filters_text,
    images_text,
    leaks_text,
    plot_feature_maps,
    plot_filters,
    plot_images,
    plot_leaks,
)
from cnnlesson.plots.signals import plot_signals, signals_text
from cnnlesson.plots.splits import (
    class_balance_text,
    fold_balance_text,
    folds_text,
    plot_class_balance,
    plot_fold_balance,
    plot_folds,
)
from cnnlesson.plots.trials import (
    METRICS,
    grid_text,
    history_text,
    outcomes,
    plot_grid,
    plot_history,
    plot_trials,
    plot_weight_decay,
    trial_curves,
    trials_text,
    weight_decay_text,
)
from cnnlesson.plots.windows import (
    convolution_text,
    plot_convolution,
    plot_receptive_field,
    receptive_field_text,
)

__all__ = [
    "METRICS",
    "WIDE",
    "architecture_text",
    "as_html",
    "blank",
    "class_balance_text",
    "confusion_text",
    "convolution_text",
    "depth_curves_text",
    "depth_text",
    "describe_figure",
    "feature_maps_text",
    "filters_text",
    "fold_balance_text",
    "folds_text",
    "gradient_norms_text",
    "grid_text",
    "history_text",
    "images_text",
    "layers_text",
    "leaks_text",
    "most_wrong_text",
    "outcomes",
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
    "receptive_field_text",
    "residual_sizes_text",
    "save_figure",
    "show",
    "signals_text",
    "trial_curves",
    "trials_text",
    "weight_decay_text",
]
