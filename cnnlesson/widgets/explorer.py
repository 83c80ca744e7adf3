"""What all explorers have in common: controls, and under them a picture with its numbers in words."""

import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
from IPython.display import display
from matplotlib.axes import Axes

from cnnlesson.plots.figures import describe_figure, picture
from cnnlesson.trial_run import one_line

_LABEL = "9em"  # the width of a control's label


class Explorer:
    """Controls, and what they show. As the last line of a cell it is displayed.

    Where widgets run, the picture follows the controls; where none can (a preview, a printed page, a notebook that was
    saved and is opened again), the first picture stays with its words.

    Args:
        controls: by the name that `draw` knows them by; each has a description, which is its label.
        draw: called with the values of the controls, it gives the axes of a figure and what to say beside it. A
            ValueError of it is said in place of the picture. It is not called twice with the same values.
        prepare: called before `draw` where a list has other choices as another control moves; `Choice.offer` gives
            it those.
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
        self.page = ipywidgets.HTML(layout=ipywidgets.Layout(margin="8px 0 0 0"))
        self.words = self.plain = ""
        self._drawn = None
        for control in controls.values():
            control.when_changed(self.update)
        self.update()
        row = ipywidgets.Layout(flex_flow="row wrap")
        self.box = ipywidgets.VBox([ipywidgets.HBox(list(controls.values()), layout=row), self.page])

    def update(self, change: object = None) -> None:
        """Draw again where a control has another value than at the last time."""
        if self._preparing:  # a list has just got other choices: what that shows is drawn once, when all have
            return
        self._preparing = True
        self.prepare()
        self._preparing = False
        values = {name: control.value for name, control in self.controls.items()}
        if values == self._drawn:
            return
        self._drawn = values
        try:
            axes, self.words = self.draw(**values)
            alt = describe_figure(axes).alt
            shown = picture(axes, alt)
        except Exception as error:  # whatever a student's model or images raise: a traceback in a widget is never seen
            self.words = str(error) if isinstance(error, ValueError) else one_line(error)
            alt, shown = "No picture", ""
        # A live region: a screen reader reads what has changed.
        self.page.value = f'{shown}<pre role="status" style="white-space: pre-wrap">{html.escape(self.words)}</pre>'
        self.plain = f"{alt}\n{self.words}"

    def redraw(self) -> None:
        """Draw again although no control has moved, as what is drawn has changed."""
        self._drawn = None
        self.update()

    def _ipython_display_(self) -> None:
        name = f"explorer-{self.box.model_id}"
        self.box.add_class(name)
        widget = {"model_id": self.box.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": widget, "text/plain": "controls"}, raw=True)
        still = f'<div class="{name}-still">{self.page.value}</div>'
        display({"text/html": _ONE_OF_TWO.replace("NAME", name) + still, "text/plain": self.plain}, raw=True)


# Below the controls stands the first picture, for pages without widgets. It is hidden as long as the explorer itself is
# on the page; where it is not, JupyterLab's "Error displaying widget" in the output before is hidden.
_ONE_OF_TWO = """\
<style>
body:has(.NAME) .NAME-still { display: none; }
body:not(:has(.NAME)) .jp-OutputArea-child:has(+ .jp-OutputArea-child .NAME-still) { display: none; }
</style>
"""


class Slider(ipywidgets.HBox):
    """A whole number, as a field with its label and a slider beside it.

    The slider of ipywidgets has no name for a screen reader; the field has, and the arrow keys move both.
    """

    def __init__(self, label: str, value: int, least: int, most: int):
        limits = {"value": value, "min": least, "max": most, "continuous_update": True}
        style, width = {"description_width": _LABEL}, ipywidgets.Layout(width="15em")
        self.number = ipywidgets.BoundedIntText(description=label, style=style, layout=width, **limits)
        self.bar = ipywidgets.IntSlider(readout=False, layout=ipywidgets.Layout(width="11em"), **limits)
        ipywidgets.jslink((self.number, "value"), (self.bar, "value"))  # in the browser, without waiting for the kernel
        super().__init__([self.number, self.bar])

    @property
    def value(self) -> int:
        return self.number.value

    def when_changed(self, call: Callable) -> None:
        self.number.observe(call, "value")


class Choice(ipywidgets.Dropdown):
    """One of `options`: values, or pairs (words, value)."""

    def __init__(self, label: str, options: Sequence, **value):
        layout = ipywidgets.Layout(width="26em")
        super().__init__(
            options=options, description=label, style={"description_width": _LABEL}, layout=layout, **value
        )

    def offer(self, options: Sequence) -> None:
        """Have other options; what is chosen stays chosen where it can, and else it is the first."""
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
