"""Where a message appears: in a notebook's output or in a terminal."""

import sys


def output_place():
    """A place in the output of the notebook's cell that can be filled anew, or None outside a notebook.

    It is IPython's DisplayHandle: `place.update({"text/html": ..., "text/plain": ...}, raw=True)` fills it.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)
