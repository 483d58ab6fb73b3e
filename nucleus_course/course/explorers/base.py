"""The glue between a pure draw function and ipywidgets controls.

An explorer has *controls* with values, and ``draw(**values) -> (Figure, caption)`` that depends on the
values alone. ``explorer.draw()`` gives the default view as a plain picture; ``explorer.widget()`` the
controls above the picture. The picture is an ``<img>`` whose alternative text is the caption, and the
caption stands below it, announced politely to screen readers when it changes. All controls are
ipywidgets' own, so each can be reached with Tab and moved with the arrow keys.
"""

import html
from dataclasses import dataclass, field
from typing import Any

from nucleus_course.figures import style


@dataclass
class Control:
    """One control: ``kind`` is choice (``options``), number or whole (``low``, ``high``, ``step``)."""

    kind: str
    label: str
    value: Any
    options: tuple = ()
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    help: str = ""
    widget: Any = field(default=None, repr=False)

    def build(self):
        """The ipywidgets control, made once."""
        import ipywidgets as widgets

        common = {
            "description": self.label,
            "tooltip": self.help or self.label,
            "style": {"description_width": "11em"},
            "layout": widgets.Layout(width="34em", max_width="98%"),
        }
        if self.kind == "choice":
            self.widget = widgets.Dropdown(options=list(self.options), value=self.value, **common)
        elif self.kind == "whole":
            self.widget = widgets.IntSlider(
                value=self.value,
                min=int(self.low),
                max=int(self.high),
                step=int(self.step),
                **common,
            )
        else:
            self.widget = widgets.FloatSlider(
                value=self.value,
                min=self.low,
                max=self.high,
                step=self.step,
                readout_format=".2f",
                **common,
            )
        return self.widget


class Explorer:
    """Base of the explorers: subclasses define ``controls`` (a dict of :class:`Control`) and ``_draw``.

    ``title`` names the group of controls. ``adjust(values)`` may return changes to other controls'
    limits, ``{name: {"high": 7}}``, after a change (the number of images depends on the type chosen).
    """

    title = "Explorer"

    def __init__(self, controls: dict):
        self.controls = controls
        self.picture = None
        self._busy = False

    @property
    def values(self) -> dict:
        """The controls' present values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _draw(self, **values):
        raise NotImplementedError

    def adjust(self, values: dict) -> dict:
        return {}

    def draw(self, **values):
        """(Figure, caption) for the present values, or for those given."""
        return self._draw(**{**self.values, **values})

    def set(self, **values) -> None:
        """Set controls from Python: limits adjust, and the picture is drawn again."""
        for name, value in values.items():
            control = self.controls[name]
            if control.widget is not None:
                control.widget.value = value  # its observer does the rest
            else:
                control.value = value
                self._adjust()

    def widget(self):
        """The controls above the picture, as one ipywidgets box."""
        import ipywidgets as widgets

        self.picture = widgets.HTML()
        rows = [widgets.HTML(f"<strong>{html.escape(self.title)}</strong>")]
        for name, control in self.controls.items():
            rows.append(control.build())
            control.widget.observe(
                lambda change, name=name: self._changed(name, change["new"]), names="value"
            )
        self._adjust()
        self._render()
        return widgets.VBox([*rows, self.picture])

    def _changed(self, name: str, value) -> None:
        self.controls[name].value = value
        if self._busy:
            return
        self._busy = True
        try:
            self._adjust()
        finally:
            self._busy = False
        self._render()

    def _adjust(self) -> None:
        for name, changes in self.adjust(self.values).items():
            control = self.controls[name]
            for key, value in changes.items():
                setattr(control, key, value)
            control.value = int(min(max(control.value, control.low), control.high))
            if control.widget is not None:
                control.widget.max = int(control.high)
                control.widget.value = control.value

    def _render(self) -> None:
        self.picture.value = style.html(*self._draw(**self.values)).replace(
            "<figcaption ", '<figcaption aria-live="polite" ', 1
        )
