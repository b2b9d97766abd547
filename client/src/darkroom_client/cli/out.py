"""What the command says, and where: results on stdout, words for people on stderr, colours on a terminal only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Json = dict[str, object] | list[dict[str, object]]


_GAP: Final = 2
_ROOM_MIN: Final = 10


class Out:
    """Results for machines or for people.

    With `as_json` stdout gets exactly one JSON document, whatever happens. Without, it gets tables and colours where it
    is a terminal, else one record a line, its fields parted by tabs.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.people = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._results = Console(highlight=False, markup=False, soft_wrap=True)

    @property
    def interactive(self) -> bool:
        """Whether a person reads stdout."""
        return self._results.is_terminal and not self.as_json

    def document(self, value: Json) -> None:
        """The result for machines."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def value(self, text: str) -> None:
        """A result of one line."""
        sys.stdout.write(plain(text) + "\n")

    def records(
        self, titles: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: Sequence[str] = ()
    ) -> None:
        """A listing. `numbers` are the titles of columns to be aligned right."""
        if not self.interactive:
            for row in rows:
                self.value_line(row)
            return
        shown = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
        # Only the last column gives way where the terminal is narrow: half an id is none.
        *widths, _ = (max(len(title), *map(len, column)) for title, *column in zip(titles, *shown, strict=True))
        room = self._results.width - sum(width + _GAP for width in widths)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP, 0, 0))
        for title in titles:
            table.add_column(title, justify="right" if title in numbers else "left", no_wrap=True)
        for row in shown:
            row[-1].truncate(max(room, _ROOM_MIN), overflow="ellipsis")
            table.add_row(*row)
        self._results.print(table, soft_wrap=False)

    def value_line(self, row: Sequence[str | Text]) -> None:
        """One record for a pipe."""
        sys.stdout.write("\t".join(plain(str(cell)) for cell in row) + "\n")

    def fact(self, name: str, value: str | Text) -> None:
        """A fact of what is shown, on stdout."""
        shown = value if isinstance(value, Text) else Text(plain(value))
        self._results.print(Text.assemble((f"{name:<12}", "dim"), shown))

    def done(self, text: str, *, aside: str = "") -> None:
        """Something came true."""
        self._word("✓", "green", text, aside)

    def warn(self, text: str) -> None:
        """Something to look at."""
        self._word("!", "yellow", text)

    def failed(self, text: str) -> None:
        """Something did not come true."""
        self._word("✗", "red", text)

    def hint(self, text: str) -> None:
        """What to do next."""
        self.people.print(Text(f"  {plain(text)}", style="dim"))

    @contextmanager
    def moving(self, line: Moving) -> Iterator[None]:
        """Show it, moving, while inside. Where stderr is no terminal, each change of its text is printed once."""
        if self.people.is_terminal and not self.people.is_dumb_terminal:
            with Live(line, console=self.people, refresh_per_second=10, transient=True):
                yield
        else:
            line.on_change = lambda text: self.people.print(Text(f"  {text}"))
            line.on_change(line.text)
            yield

    def _word(self, sign: str, style: str, text: str, aside: str = "") -> None:
        self.people.print(Text.assemble((sign, style), " ", plain(text), (f"  {aside}" if aside else "", "dim")))


class Moving(Protocol):
    """Something that goes on: as a terminal shows it, and as a text that changes when there is something to tell."""

    text: str
    on_change: Callable[[str], None] | None

    def __rich__(self) -> RenderableType: ...


class MovingLine:
    """What goes on now, and for how long."""

    def __init__(self, text: str, aside: str = "") -> None:
        self.text = plain(text)
        self.on_change: Callable[[str], None] | None = None
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")
        self._aside = aside

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def show(self, text: str, aside: str = "") -> None:
        """Say something else from now on."""
        changed = plain(text) != self.text
        self.text, self._aside = plain(text), aside
        if changed and self.on_change:
            self.on_change(self.text)

    def __rich__(self) -> RenderableType:
        line = Text.assemble(
            self.text, (f"  {self.seconds:.1f} s", "cyan"), (f"  {self._aside}" if self._aside else "", "dim")
        )
        self._spinner.update(text=line)
        return self._spinner


def plain(text: str) -> str:
    """One line without anything that a terminal would obey: what others wrote is shown, not executed."""
    return "".join(character if character.isprintable() else " " for character in text)


def dollars(amount: float | None) -> str:
    """With four decimals: a picture costs less than a cent."""
    return "unknown" if amount is None else f"${amount:.4f}"


def ago(moment: datetime) -> str:
    """How long ago, roughly."""
    return span((datetime.now(UTC) - moment).total_seconds())


def span(seconds: float) -> str:
    """A time in its largest unit."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def size_of(count: float) -> str:
    """A number of bytes, roughly."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )
