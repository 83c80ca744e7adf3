"""The interactive parts of the notebooks: explorers, and the live board of a training.

explorer.py contains what all explorers share: controls, a picture, its facts as text, errors in one line.
"""

from cnnlesson.widgets.board import live_board
from cnnlesson.widgets.convolution import explore_convolution
from cnnlesson.widgets.depth import explore_depth
from cnnlesson.widgets.inside import explore_network
from cnnlesson.widgets.layers import explore_layers
from cnnlesson.widgets.results import explore_results
from cnnlesson.widgets.splits import explore_splits

__all__ = [
    "explore_convolution",
    "explore_depth",
    "explore_layers",
    "explore_network",
    "explore_results",
    "explore_splits",
    "live_board",
]
