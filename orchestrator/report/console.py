"""The console: nothing that others wrote can move its cursor or pass for markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from orchestrator.core.text import visible, visible_lines


class PlainConsole(Console):
    """A console for what others wrote: a string is one line and never markup; a `Text` may have several lines.

    Whatever it is given, only Rich itself writes control characters: all else goes out as `visible` spells it.
    """

    def render_str(self, text: str, *, style: str | Style = "", **options: Any) -> Text:
        """Return a string as the text that it is, whatever `options` say of markup, emoji and highlighting."""
        layout = {name: options[name] for name in ("justify", "overflow") if name in options}
        return Text(visible(text), style=style, **layout)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything, cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))


def make_console(stderr: bool = False) -> PlainConsole:
    """Return a console; where the output is no terminal, lines are wide and plain."""
    console = PlainConsole(stderr=stderr, highlight=False)
    if not console.is_terminal:
        return PlainConsole(stderr=stderr, highlight=False, width=200, no_color=True)
    return console
