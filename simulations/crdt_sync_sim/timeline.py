"""A picture of a run: time to the right, a lane per node, partitions as bands, what happened as marks.

Plain SVG, so that it opens anywhere and can be searched. Marks say what they are when the pointer rests on
them.
"""

from __future__ import annotations

from html import escape
from typing import Final

from crdt_sync_sim.run import Outcome
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.world import Event, seconds

WIDTH: Final = 1200
LEFT: Final = 110
LANE: Final = 44
TOP: Final = 70
MAX_LINES: Final = 1500
"""Messages drawn; with more, every second, third … is left out, and the picture says so."""

_MARKS: Final = {
    "write": ("circle", "#1a7f37", "write acknowledged"),
    "write_refused": ("circle", "#bf8700", "write refused"),
    "write_failed": ("circle", "#cf222e", "write failed"),
    "conflict": ("diamond", "#8250df", "conflict"),
    "crash": ("cross", "#cf222e", "crash"),
    "power_cut": ("cross", "#82071e", "power cut"),
    "start": ("tick", "#57606a", "start"),
    "refuse": ("square", "#bc4c00", "frame refused"),
    "quarantine": ("square", "#cf222e", "envelope put aside"),
    "restore_backup": ("square", "#0969da", "backup restored"),
    "wipe": ("square", "#82071e", "wiped"),
    "welcome": ("tick", "#0969da", "connected"),
}
_BANDS: Final = {"partition": "#ffebe9", "cut": "#fff1e5", "offline": "#ffebe9", "pause": "#eaeef2"}


def timeline(outcome: Outcome) -> str:
    """The SVG. The outcome must have been made with its trace kept."""
    return _Picture(outcome).draw()


class _Picture:
    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._events = outcome.trace
        self._lanes = [RELAY, *outcome.scenario.devices]
        self._end_us = max(self._events[-1].at_us if self._events else 0, 1)
        self._parts: list[str] = []

    def draw(self) -> str:
        height = TOP + LANE * len(self._lanes) + 60
        self._bands()
        self._axis(height)
        for lane in self._lanes:
            y = self._y(lane)
            self._parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 20}" y2="{y}" class="lane"/>')
            self._parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(lane)}</text>')
        self._messages()
        for event in self._events:
            self._mark(event)
        self._legend(height)
        outcome = self._outcome
        title = f"{outcome.scenario.title} · seed {outcome.seed} · {outcome.verdict}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
            "<style>text{font:12px system-ui,sans-serif;fill:#24292f}.lane{stroke:#d0d7de}"
            ".m{stroke:#0969da;stroke-width:.5;opacity:.35}.t{fill:#57606a;font-size:11px}</style>"
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
            f'<text x="{LEFT}" y="24" style="font-size:16px">{escape(title)}</text>'
            + "".join(self._parts)
            + "</svg>\n"
        )

    def _x(self, at_us: int) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * min(at_us, self._end_us) / self._end_us, 1)

    def _y(self, lane: str) -> int:
        return TOP + LANE * self._lanes.index(lane)

    def _axis(self, height: int) -> None:
        step_s = next((s for s in _STEPS_S if self._end_us / 1e6 / s <= 12), _STEPS_S[-1])
        at_s = 0
        while at_s * 1_000_000 <= self._end_us:
            x = self._x(at_s * 1_000_000)
            self._parts.append(
                f'<line x1="{x}" y1="{TOP - 24}" x2="{x}" y2="{height - 50}" stroke="#eaeef2"/>'
            )
            self._parts.append(f'<text x="{x + 2}" y="{TOP - 28}" class="t">{_clock(at_s)}</text>')
            at_s += step_s
        for event in self._events:
            if event.kind in ("story", "heal"):
                x = self._x(event.at_us)
                self._parts.append(
                    f'<line x1="{x}" y1="36" x2="{x}" y2="{height - 50}"'
                    f' stroke="#57606a" stroke-dasharray="4"/>'
                    f'<text x="{x - 3}" y="{height - 42}" text-anchor="end" class="t">{event.kind}</text>'
                )

    def _bands(self) -> None:
        for scheduled in self._outcome.events:
            colour = _BANDS.get(scheduled.action)
            if colour is None:
                continue
            start_us = self._outcome.story_us + seconds(scheduled.at_s)
            length_s = scheduled.arguments.get("for_s", self._outcome.scenario.duration_s - scheduled.at_s)
            x, end = self._x(start_us), self._x(start_us + seconds(length_s))
            for name in self._hit(scheduled.action, dict(scheduled.arguments)):
                self._parts.append(
                    f'<rect x="{x}" y="{self._y(name) - 14}" width="{max(end - x, 2)}" height="28"'
                    f' fill="{colour}"><title>{escape(str(scheduled))}</title></rect>'
                )

    def _hit(self, action: str, arguments: dict[str, object]) -> list[str]:
        """The lanes that an event shades: who is apart from the relay, or stands still."""
        if action == "partition":
            groups = arguments["groups"]
            assert isinstance(groups, list)
            return [name for group in groups if RELAY not in group for name in group]
        names = [arguments.get(key) for key in ("device", "node", "from", "to")]
        return [str(name) for name in names if name in self._lanes and (name != RELAY or action == "pause")]

    def _messages(self) -> None:
        lines = [
            event for event in self._events if event.kind == "got" and event.detail.split()[0] in self._lanes
        ]
        every = max(1, -(-len(lines) // MAX_LINES))
        delay_us = round(self._outcome.scenario.delay_ms * 1000)
        for event in lines[::every]:
            sender = event.detail.split()[0]
            self._parts.append(
                f'<line x1="{self._x(max(0, event.at_us - delay_us))}" y1="{self._y(sender)}"'
                f' x2="{self._x(event.at_us)}" y2="{self._y(event.node)}" class="m">'
                f"<title>{escape(str(event))}</title></line>"
            )

    def _mark(self, event: Event) -> None:
        if event.kind not in _MARKS or event.node not in self._lanes:
            return
        shape, colour, _ = _MARKS[event.kind]
        self._parts.append(
            _shape(shape, colour, self._x(event.at_us), self._y(event.node), escape(str(event)))
        )

    def _legend(self, height: int) -> None:
        x = LEFT
        for shape, colour, label in _MARKS.values():
            self._parts.append(_shape(shape, colour, x, height - 28, ""))
            self._parts.append(f'<text x="{x + 9}" y="{height - 24}" class="t">{label}</text>')
            x += 24 + 6 * len(label)


_STEPS_S: Final = (1, 5, 10, 30, 60, 120, 300, 600, 3_600, 21_600, 86_400)


def _clock(at_s: int) -> str:
    days, rest = divmod(at_s, 86_400)
    text = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text


def _shape(shape: str, colour: str, x: float, y: float, title: str) -> str:
    hint = f"<title>{title}</title>"
    match shape:
        case "circle":
            return f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}">{hint}</circle>'
        case "diamond":
            points = f"{x},{y - 6} {x + 6},{y} {x},{y + 6} {x - 6},{y}"
            return f'<polygon points="{points}" fill="{colour}">{hint}</polygon>'
        case "cross":
            path = f"M{x - 5},{y - 5}L{x + 5},{y + 5}M{x - 5},{y + 5}L{x + 5},{y - 5}"
            return f'<path d="{path}" stroke="{colour}" stroke-width="2.5">{hint}</path>'
        case "square":
            return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}">{hint}</rect>'
        case _:
            return f'<line x1="{x}" y1="{y - 7}" x2="{x}" y2="{y + 7}" stroke="{colour}">{hint}</line>'
