"""GridSearch: a grid of trials that survives whatever stops it, on one machine or on several."""

from cnnlesson.search.grid import GridSearch, status

__all__ = ["GridSearch", "status"]
