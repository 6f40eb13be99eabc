"""The console. Text from a run folder cannot move its cursor, pass for markup, or fail to be encoded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from orchestrator.core.encoding import encodable
from orchestrator.core.text import visible, visible_lines

_PIPED_WIDTH = 200
"""Characters a line of output that is no terminal."""


class PlainConsole(Console):
    """A console for untrusted text: a string is one line and never markup; a `Text` may have several lines.

    Only Rich itself writes control characters; others are spelled out by `visible`. Characters that the output's
    encoding lacks are replaced before the layout, so that columns stay aligned.
    """

    def render_str(self, text: str, *, style: str | Style = "", **options: Any) -> Text:
        """Return a string as plain text, whatever `options` say about markup, emoji and highlighting."""
        layout = {name: options[name] for name in ("justify", "overflow") if name in options}
        return Text(encodable(visible(text), self.encoding), style=style, **layout)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything, cleaned."""
        for segment in super().render(renderable, options):
            if not segment.control:
                segment = segment._replace(text=encodable(visible_lines(segment.text), self.encoding))
            yield segment


def make_console() -> PlainConsole:
    """Return a console; if the output is not a terminal, it is plain, and as wide as COLUMNS says or 200."""
    console = PlainConsole(highlight=False)
    return console if console.is_terminal else PlainConsole(highlight=False, width=_piped_width(), no_color=True)


def _piped_width() -> int:
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isdecimal() and 0 < int(asked) < 10_000 else _PIPED_WIDTH
