"""What all explorers share: controls, and below them a picture with its facts as text."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence

import ipywidgets
import traitlets
from IPython.display import display
from matplotlib.axes import Axes

from cnnlesson.plots.figures import description, picture
from cnnlesson.runtime.display import one_line

_LABEL = {"description_width": "9em"}


class Explorer:
    """Controls, and the picture that they change. A notebook displays it if it is the last line of a cell.

    If widgets cannot run (in a preview, on a printed page, in a saved notebook that is opened again), the first
    picture is shown with its text.

    Args:
        controls: by the names of the parameters of `draw`.
        draw: called with the values of the controls, returns the axes of a figure and the text below it. The message
            of an exception is shown instead of the picture. For a list whose choices depend on another control, it
            calls `Choice.offer` first, and uses the choice that this returns.
    """

    def __init__(
        self, controls: "Mapping[str, Slider | Choice | Tick]", draw: Callable[..., tuple[Iterable[Axes], str]]
    ):
        self.controls, self.draw = controls, draw
        self._is_drawing = False
        self.page = ipywidgets.HTML(layout={"margin": "8px 0 0 0"})
        for control in controls.values():
            control.observe(self.update, "value")
        self.update()
        row = ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([row, self.page])

    def update(self, change: object = None) -> None:
        """Draw again, since the value of a control has changed."""
        if self._is_drawing:  # `draw` has offered new choices
            return
        self._is_drawing = True
        try:
            axes, self.text = self.draw(**{name: control.value for name, control in self.controls.items()})
            alt = description(axes).alt
            shown = picture(axes, alt)
        except Exception as error:  # of the student's model or images; a notebook hides a widget's traceback
            self.text = str(error) if isinstance(error, ValueError) else one_line(error)
            alt, shown = "No picture", ""
        finally:
            self._is_drawing = False
        # A live region: a screen reader reads what has changed.
        self.page.value = f'{shown}<pre role="status" style="white-space: pre-wrap">{html.escape(self.text)}</pre>'
        self.plain = f"{alt}\n{self.text}"

    def _ipython_display_(self) -> None:
        name = f"explorer-{self.box.model_id}"
        self.box.add_class(name)
        widget = {"model_id": self.box.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": widget, "text/plain": "controls"}, raw=True)
        still = f'<div class="{name}-still">{self.page.value}</div>'
        display({"text/html": _ONE_OF_TWO.replace("NAME", name) + still, "text/plain": self.plain}, raw=True)


# The first picture is below the controls, for pages without widgets. It is hidden while the explorer itself is on the
# page; if it is not, JupyterLab's "Error displaying widget" in the output before is hidden.
_ONE_OF_TWO = """\
<style>
body:has(.NAME) .NAME-still { display: none; }
body:not(:has(.NAME)) .jp-OutputArea-child:has(+ .jp-OutputArea-child .NAME-still) { display: none; }
</style>
"""


class Slider(ipywidgets.HBox):
    """An integer, as a labelled field with a slider.

    The slider of ipywidgets has no name for a screen reader. The field has one, and the arrow keys move both.
    """

    value = traitlets.Int()

    def __init__(self, label: str, value: int, least: int, most: int):
        limits = {"value": value, "min": least, "max": most, "continuous_update": True}
        self.number = ipywidgets.BoundedIntText(description=label, style=_LABEL, layout={"width": "15em"}, **limits)
        self.bar = ipywidgets.IntSlider(readout=False, layout={"width": "11em"}, **limits)
        ipywidgets.jslink((self.number, "value"), (self.bar, "value"))  # in the browser, without waiting for the kernel
        super().__init__([self.number, self.bar])
        traitlets.link((self.number, "value"), (self, "value"))


class Choice(ipywidgets.Dropdown):
    """One of `options`: values, or pairs (label, value)."""

    def __init__(self, label: str, options: Sequence, **value):
        super().__init__(options=options, description=label, style=_LABEL, layout={"width": "26em"}, **value)

    def offer(self, options: Sequence) -> object:
        """Change the options, and return the choice: as before if possible, otherwise the first option."""
        if list(options) != list(self.options):
            chosen, values = self.value, [option[1] if isinstance(option, tuple) else option for option in options]
            self.options = options
            self.value = chosen if chosen in values else values[0]
        return self.value


class Tick(ipywidgets.Checkbox):
    """Yes or no."""

    def __init__(self, label: str, value: bool):
        layout = {"width": "17em", "margin": "2px 0 2px 9em"}
        super().__init__(value=value, description=label, indent=False, layout=layout)
