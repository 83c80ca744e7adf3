"""What all explorers share: controls, and below them a picture with its facts as text."""

import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
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
            of an exception is shown instead of the picture. It is not called twice in a row with the same values.
        prepare: called before `draw`, for lists whose choices depend on another control; see `Choice.offer`.
    """

    def __init__(
        self,
        controls: "Mapping[str, Slider | Choice | Tick]",
        draw: Callable[..., tuple[Axes, str]],
        prepare: Callable[[], None] = lambda: None,
    ):
        self.controls = controls
        self.draw = draw
        self.prepare = prepare
        self._preparing = False
        self._drawn = None
        self.page = ipywidgets.HTML(layout=ipywidgets.Layout(margin="8px 0 0 0"))
        for control in controls.values():
            control.when_changed(self.update)
        self.update()
        row = ipywidgets.Layout(flex_flow="row wrap")
        self.box = ipywidgets.VBox([ipywidgets.HBox(list(controls.values()), layout=row), self.page])

    def update(self, change: object = None) -> None:
        """Draw again if the value of a control has changed."""
        if self._preparing:  # a list has new choices; draw once, when all lists have theirs
            return
        self._preparing = True
        try:
            self.prepare()
        finally:
            self._preparing = False
        values = {name: control.value for name, control in self.controls.items()}
        if values == self._drawn:
            return
        self._drawn = values
        try:
            axes, self.text = self.draw(**values)
            alt = description(axes).alt
            shown = picture(axes, alt)
        except Exception as error:  # of the student's model or images; a notebook hides a widget's traceback
            self.text = str(error) if isinstance(error, ValueError) else one_line(error)
            alt, shown = "No picture", ""
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

    def __init__(self, label: str, value: int, least: int, most: int):
        limits = {"value": value, "min": least, "max": most, "continuous_update": True}
        width = ipywidgets.Layout(width="15em")
        self.number = ipywidgets.BoundedIntText(description=label, style=_LABEL, layout=width, **limits)
        self.bar = ipywidgets.IntSlider(readout=False, layout=ipywidgets.Layout(width="11em"), **limits)
        ipywidgets.jslink((self.number, "value"), (self.bar, "value"))  # in the browser, without waiting for the kernel
        super().__init__([self.number, self.bar])

    @property
    def value(self) -> int:
        return self.number.value

    def when_changed(self, call: Callable) -> None:
        self.number.observe(call, "value")


class Choice(ipywidgets.Dropdown):
    """One of `options`: values, or pairs (label, value)."""

    def __init__(self, label: str, options: Sequence, **value):
        layout = ipywidgets.Layout(width="26em")
        super().__init__(options=options, description=label, style=_LABEL, layout=layout, **value)

    def offer(self, options: Sequence) -> None:
        """Change the options. The current choice is kept if possible; otherwise the first option is chosen."""
        if list(options) == list(self.options):
            return
        chosen = self.value
        self.options = options
        values = [option[1] if isinstance(option, tuple) else option for option in options]
        self.value = chosen if chosen in values else next(iter(values), None)

    def when_changed(self, call: Callable) -> None:
        self.observe(call, "value")


class Tick(ipywidgets.Checkbox):
    """Yes or no."""

    def __init__(self, label: str, value: bool):
        layout = ipywidgets.Layout(width="17em", margin="2px 0 2px 9em")
        super().__init__(value=value, description=label, indent=False, layout=layout)

    def when_changed(self, call: Callable) -> None:
        self.observe(call, "value")
