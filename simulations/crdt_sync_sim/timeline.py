"""A picture of a run: time to the right, a lane per node, partitions as bands, what happened as marks.

Plain SVG, so that it opens anywhere and can be searched. Marks and bands say what they are when the pointer
rests on them. Times count from the beginning of the story, as in the scenario. Where a run failed, the first
bad event and the moment it went wrong are marked.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from crdt_sync_sim.causes import Explanation
from crdt_sync_sim.checks import how_telling
from crdt_sync_sim.plan import everyone
from crdt_sync_sim.run import Outcome
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.timeline_bands import BAND_NAMES, bands, poor_links
from crdt_sync_sim.world import Event, seconds

WIDTH: Final = 1280
LEFT: Final = 130
RIGHT: Final = 30
LANE: Final = 48
HEAD: Final = 84
"""Above the first lane: title, summary, time."""
MAX_LINES: Final = 1500
"""Messages drawn; with more, every second, third … is left out, and the legend says so."""
_CHAR: Final = 6.3
"""Width of a character of the small text: 11 px, no font is measured here."""

_BAND_COLOURS: Final = {
    "apart": "#ffd8d3", "one way": "#ffe3c9", "down": "#d0d7de", "paused": "#e2d7f5", "disk full": "#fbe7a1",
}  # fmt: skip
_MARKS: Final = {
    "write": ("circle", "#1a7f37", "operation acknowledged"),
    "resolve": ("ring", "#8250df", "conflict resolved by someone"),
    "conflict": ("diamond", "#8250df", "conflict seen"),
    "write_refused": ("circle", "#bf8700", "operation refused by rule"),
    "write_failed": ("circle", "#cf222e", "operation failed"),
    "crash": ("cross", "#cf222e", "crash"),
    "power_cut": ("cross", "#4d0009", "power cut"),
    "start": ("tick", "#1a7f37", "started again"),
    "start_failed": ("tick", "#cf222e", "could not start"),
    "quarantine": ("square", "#cf222e", "envelope put aside"),
    "backup": ("square", "#54aeff", "backup taken"),
    "restore_backup": ("square", "#0969da", "backup put back"),
    "clock": ("triangle", "#9a6700", "clock set wrong"),
    "wipe": ("square", "#4d0009", "wiped"),
    "joined": ("square", "#1a7f37", "joined the space"),
    "join_failed": ("square", "#bf8700", "could not join"),
    "upgrade": ("triangle", "#0969da", "another version of the app"),
    "welcome": ("tick", "#0969da", "connected"),
}
_BELOW: Final = {"conflict": 9, "resolve": 9}
"""Drawn below the lane's line, so that what happens at the same time stays in sight."""
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.s{font-size:11px;fill:#57606a}.lane{stroke:#afb8c1}"
    ".up{stroke:#0969da;stroke-width:.8;opacity:.45}.down{stroke:#1b7c83;stroke-width:.8;opacity:.35}"
)


def timeline(outcome: Outcome, explanation: Explanation | None = None) -> str:
    """The SVG. The outcome must have been made with its trace kept."""
    return _Picture(outcome, explanation).draw()


class _Picture:
    def __init__(self, outcome: Outcome, explanation: Explanation | None) -> None:
        self._outcome = outcome
        self._explanation = explanation
        self._start_us = outcome.story_us
        self._events = [event for event in outcome.trace if event.at_us >= outcome.story_us]
        self._roles = everyone(outcome.scenario, outcome.events)
        self._lanes = [RELAY, *self._roles]
        self._healed_us = next(
            (event.at_us for event in self._events if event.kind == "heal"),
            self._start_us + seconds(outcome.scenario.duration_s),
        )
        last_us = self._events[-1].at_us if self._events else 0
        self._end_us = max(last_us, self._healed_us, self._start_us + 1)
        # A little room, so that what happens last is not cut off.
        self._end_us += (self._end_us - self._start_us) // 50
        self._bottom = HEAD + LANE * len(self._lanes)
        self._used: set[str] = set()
        self._parts: list[str] = []

    def draw(self) -> str:
        self._phases()
        self._bands()
        self._axis()
        self._lane_names()
        self._messages()
        for event in self._events:
            self._mark(event)
        self._clocks()
        self._first_bad()
        height = self._legend(self._bottom + 34)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
            f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
            + "".join([*self._title(), *self._parts])
            + "</svg>\n"
        )

    def _x(self, at_us: int) -> float:
        share = (min(max(at_us, self._start_us), self._end_us) - self._start_us) / (
            self._end_us - self._start_us
        )
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)

    def _y(self, lane: str) -> int:
        return HEAD + LANE // 2 + LANE * self._lanes.index(lane)

    # What stands around the lanes

    def _title(self) -> Iterator[str]:
        outcome, figures = self._outcome, self._outcome.figures
        colour = "#cf222e" if outcome.failed else "#1a7f37"
        verdict = "PASS" if not outcome.failed else f"FAILED: {outcome.verdict}"
        yield (
            f'<text x="16" y="26" style="font-size:17px;font-weight:600">{escape(outcome.scenario.title)}'
            f'<tspan dx="12" style="font-size:13px;font-weight:400;fill:#57606a">seed {outcome.seed}</tspan>'
            f'<tspan dx="12" style="font-size:14px;fill:{colour}">{escape(verdict)}</tspan></text>'
        )
        summary = (
            f"{figures.writes_acknowledged:,} writes acknowledged, {figures.writes_lost} lost,"
            f" {figures.writes_recovered} recovered · {figures.conflicts_opened} conflicts,"
            f" {figures.conflicts_standing} open · {figures.bytes:,} bytes"
        )
        if outcome.failed:
            first = min(outcome.violations, key=how_telling, default=None)
            reason = outcome.error.strip()[-120:] if first is None else first.message
            summary = f"{reason} · {summary}"
        yield f'<text x="16" y="46" class="s">{escape(_cut(summary, WIDTH - 32))}</text>'

    def _phases(self) -> None:
        """From the heal on, everything works."""
        x, end = self._x(self._healed_us), self._x(self._end_us)
        self._parts.append(
            f'<rect x="{x}" y="{HEAD}" width="{end - x:.1f}" height="{self._bottom - HEAD}" fill="#f0f8f2"/>'
            f'<line x1="{x}" y1="{HEAD - 6}" x2="{x}" y2="{self._bottom + 6}" stroke="#1a7f37"'
            ' stroke-dasharray="4"/>'
        )
        label = "everything heals"
        room = end - x > len(label) * _CHAR + 8
        anchor, at = ("start", x + 4) if room else ("end", x - 4)
        self._text(at, self._bottom + 16, label, anchor=anchor, colour="#1a7f37")

    def _axis(self) -> None:
        span_s = (self._end_us - self._start_us) / 1e6
        step_s = next((s for s in _STEPS_S if span_s / s <= 14), _STEPS_S[-1])
        for number in range(int(span_s // step_s) + 1):
            x = self._x(self._start_us + seconds(number * step_s))
            self._parts.append(
                f'<line x1="{x}" y1="{HEAD - 6}" x2="{x}" y2="{self._bottom}" stroke="#eaeef2"/>'
            )
            self._text(x, HEAD - 12, clock(number * step_s, step_s), anchor="middle")

    def _lane_names(self) -> None:
        for lane in self._lanes:
            y = self._y(lane)
            self._parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="lane"/>')
            name = _cut(lane, LEFT - 16)
            self._parts.append(f'<text x="{LEFT - 10}" y="{y}" text-anchor="end">{escape(name)}</text>')
            role = self._roles[lane].text if lane in self._roles else "server"
            self._text(LEFT - 10, y + 13, role, anchor="end")

    def _text(self, x: float, y: float, text: str, *, anchor: str = "start", colour: str = "") -> None:
        fill = f' style="fill:{colour}"' if colour else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y}" class="s" text-anchor="{anchor}"{fill}>{escape(text)}</text>'
        )

    # What happened

    def _bands(self) -> None:
        labelled: dict[str, float] = {}
        for band in sorted(bands(self._outcome, self._healed_us), key=lambda band: band.start_us):
            if band.lane not in self._lanes or band.end_us <= self._start_us:
                continue
            self._used.add(band.kind)
            x, end, y = self._x(band.start_us), self._x(band.end_us), self._y(band.lane)
            self._parts.append(
                f'<rect x="{x}" y="{y - 18}" width="{max(end - x, 2):.1f}" height="36" rx="2"'
                f' fill="{_BAND_COLOURS[band.kind]}" fill-opacity=".75"><title>{escape(band.what)}</title>'
                "</rect>"
            )
            if end - x > len(band.kind) * _CHAR + 10 and x >= labelled.get(band.lane, 0):
                self._text(x + 4, y - 7, band.kind)
                labelled[band.lane] = x + len(band.kind) * _CHAR + 10
        self._poor_links()

    def _poor_links(self) -> None:
        for link in poor_links(self._outcome, self._healed_us):
            self._used.add("link")
            x, end, y = self._x(link.start_us), self._x(link.end_us), self._y(link.lane) + 17
            self._parts.append(
                f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="#bc4c00" stroke-width="2"'
                f' stroke-dasharray="2 3"><title>{escape(link.what)}</title></line>'
            )

    def _messages(self) -> None:
        """Pushes on their way up, and what devices took in on its way down."""
        lines = [event for event in self._events if self._is_message(event)]
        self._every = max(1, -(-len(lines) // MAX_LINES))
        delay_us = round(self._outcome.scenario.delay_ms * 1000)
        for event in lines[:: self._every]:
            up = event.kind == "got"
            sender = event.detail.split()[0] if up else RELAY
            self._used.add("pushed" if up else "taken")
            self._parts.append(
                f'<line x1="{self._x(event.at_us - delay_us)}" y1="{self._y(sender)}"'
                f' x2="{self._x(event.at_us)}" y2="{self._y(event.node)}" class="{"up" if up else "down"}">'
                f"<title>{escape(str(event))}</title></line>"
            )

    def _is_message(self, event: Event) -> bool:
        if event.node not in self._lanes:
            return False
        if event.kind != "got":
            return event.kind == "merge"
        sender, what, *_ = event.detail.split()
        return sender in self._lanes and what.startswith("Push")

    def _mark(self, event: Event) -> None:
        kind = event.kind
        if kind == "write" and event.detail.startswith("ResolveOp"):
            kind = "resolve"
        if kind not in _MARKS or event.node not in self._lanes:
            return
        shape, colour, _ = _MARKS[kind]
        self._used.add(kind)
        y = self._y(event.node) + _BELOW.get(kind, 0)
        at_s = (event.at_us - self._start_us) / 1e6
        hint = f"{at_s:.3f} s  {event.node}  {event.kind} {event.detail}"
        self._parts.append(_shape(shape, colour, self._x(event.at_us), y, hint))

    def _clocks(self) -> None:
        for event in self._outcome.events:
            if event.action == "clock":
                self._used.add("clock")
                x = self._x(self._start_us + seconds(event.at_s))
                y = self._y(str(event.arguments["node"])) - 10
                self._parts.append(_shape(*_MARKS["clock"][:2], x, y, str(event)))

    def _first_bad(self) -> None:
        explanation = self._explanation
        if explanation is None:
            return
        event, bad = explanation.event, explanation.bad
        if event is not None:
            self._flag(event.at_s, "first bad event", str(event), self._bottom + 16, "#cf222e")
        if bad is not None:
            self._flag(bad.at_s, "it went wrong", bad.what, self._bottom + 30, "#82071e")
            if bad.node in self._lanes:
                x = self._x(self._start_us + seconds(bad.at_s))
                self._parts.append(
                    f'<circle cx="{x}" cy="{self._y(bad.node)}" r="11" fill="none" stroke="#cf222e"'
                    f' stroke-width="2.5"><title>{escape(bad.what)}</title></circle>'
                )

    def _flag(self, at_s: float, label: str, what: str, y: int, colour: str) -> None:
        x = self._x(self._start_us + seconds(at_s))
        self._parts.append(
            f'<line x1="{x}" y1="{HEAD - 6}" x2="{x}" y2="{y - 10}" stroke="{colour}" stroke-width="1.5"/>'
        )
        left = x < (LEFT + WIDTH) / 2
        room = (WIDTH - RIGHT - x) if left else (x - 16)
        text = _cut(f"{label}: {what}", room - 8)
        self._text(x + 4 if left else x - 4, y, text, anchor="start" if left else "end", colour=colour)

    # What it all means

    def _legend(self, top: int) -> int:
        """Draws what occurs in this picture; gives the height that is needed."""
        x, y = float(LEFT), top + 22
        for drawn, label in self._legend_entries():
            width = 22 + len(label) * _CHAR + 16
            if x + width > WIDTH - RIGHT:
                x, y = float(LEFT), y + 20
            self._parts.append(drawn.format(x=x, y=y, x1=x - 5, x2=x + 7, y1=y - 5))
            self._text(x + 13, y + 4, label)
            x += width
        return y + 20

    def _legend_entries(self) -> Iterator[tuple[str, str]]:
        """What to draw at (x, y), with those names in braces, and what it means."""
        for kind, (shape, colour, label) in _MARKS.items():
            if kind in self._used:
                yield (
                    _shape(shape, colour, 0, 0, "").join(('<g transform="translate({x} {y})">', "</g>")),
                    label,
                )
        sampled = "" if self._every == 1 else f", one in {self._every}"
        for kind, style, label in (("pushed", "up", "pushed"), ("taken", "down", "taken in")):
            if kind in self._used:
                yield (
                    f'<line x1="{{x1}}" y1="{{y}}" x2="{{x2}}" y2="{{y}}" class="{style}"'
                    ' style="stroke-width:2;opacity:1"/>',
                    f"{label}{sampled}",
                )
        for kind, label in BAND_NAMES.items():
            if kind in self._used:
                colour = _BAND_COLOURS[kind]
                yield f'<rect x="{{x1}}" y="{{y1}}" width="12" height="10" fill="{colour}"/>', label
        if "link" in self._used:
            yield (
                '<line x1="{x1}" y1="{y}" x2="{x2}" y2="{y}" stroke="#bc4c00" stroke-width="2"'
                ' stroke-dasharray="2 3"/>',
                "poor link",
            )


_STEPS_S: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800,
    604_800, 2_592_000,
)  # fmt: skip


def clock(at_s: int, step_s: int) -> str:
    """A label of the axis, in the unit that fits its steps."""
    if step_s < 60:
        minutes, rest = divmod(at_s, 60)
        return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
    if step_s < 3_600:
        hours, rest = divmod(at_s // 60, 60)
        return f"{hours}:{rest:02d} h" if hours else f"{rest} min"
    days, rest = divmod(at_s // 3_600, 24)
    if not days:
        return f"{rest} h"
    return f"{days} d {rest} h" if rest else f"{days} d"


def _cut(text: str, room: float) -> str:
    """As much of a text as fits into that many pixels."""
    fits = max(int(room / _CHAR), 4)
    return text if len(text) <= fits else f"{text[: fits - 1]}…"


def _shape(shape: str, colour: str, x: float, y: float, hint: str) -> str:
    title = f"<title>{escape(hint)}</title>" if hint else ""
    match shape:
        case "circle":
            return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}">{title}</circle>'
        case "ring":
            return (
                f'<circle cx="{x}" cy="{y}" r="4" fill="#fff" stroke="{colour}" stroke-width="2">'
                f"{title}</circle>"
            )
        case "diamond":
            points = f"{x},{y - 5} {x + 5},{y} {x},{y + 5} {x - 5},{y}"
            return f'<polygon points="{points}" fill="{colour}">{title}</polygon>'
        case "cross":
            path = f"M{x - 5},{y - 5}L{x + 5},{y + 5}M{x - 5},{y + 5}L{x + 5},{y - 5}"
            return f'<path d="{path}" stroke="{colour}" stroke-width="2.5" fill="none">{title}</path>'
        case "triangle":
            points = f"{x - 5},{y - 4} {x + 5},{y - 4} {x},{y + 5}"
            return f'<polygon points="{points}" fill="{colour}">{title}</polygon>'
        case "square":
            return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}">{title}</rect>'
        case _:
            return (
                f'<line x1="{x}" y1="{y - 8}" x2="{x}" y2="{y + 8}" stroke="{colour}" stroke-width="2">'
                f"{title}</line>"
            )
