"""The figures of a dashboard as lines of text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define

#: Lines of errors, and characters of each.
MAX_ERRORS: Final = 8
MAX_TEXT: Final = 150
#: Seconds that rates are taken over.
SPAN: Final = 30.0

_BOLD, _RED, _YELLOW, _GREEN, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
#: Control characters, and those that turn the direction of what follows.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

Row = Sequence[str]


def size(count: float | None) -> str:
    """Bytes in three digits."""
    if count is None:
        return "-"
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def age(seconds: float | None) -> str:
    """How long something has lasted, in its two largest units."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def duration(seconds: float) -> str:
    """How long something takes."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def percent(share: float | None) -> str:
    """A share."""
    return "-" if share is None else f"{share * 100:.1f} %"


@define
class Screen:
    """Draws; with ``colour`` for a terminal."""

    colour: bool = False

    def draw(self, found: Mapping[str, Any], url: str) -> str:
        """All of it, ending in a newline."""
        problems = found["problems"]
        state = "all is well" if not problems else f"{len(problems)} problem(s)"
        paint = _GREEN if not problems else _RED
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["time"]))
        lines = [f"imagefarm at {url}  {when}  {self._paint(paint, state)}"]
        for problem in problems:
            bad = problem["level"] == "bad"
            mark = self._paint(_RED if bad else _YELLOW, "!!" if bad else " !")
            lines.append(f"{mark} {_clean(problem['text'])}")
        lines += ["", *self._instances(found)]
        ups = [(i["name"], i["status"]) for i in found["instances"] if i["up"]]
        lines += self._upstreams(ups)
        lines += self._caches(ups)
        for name, status in ups:
            if "resizer" in status:
                lines += self._resizer(name, status["resizer"])
        lines += self._processes(ups)
        lines += self._errors(ups)
        return "\n".join(lines) + "\n"

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self.colour else text

    def _table(self, heads: Row, rows: Iterable[Row]) -> list[str]:
        """Columns; of heads that end in ">" to the right. Nothing without rows."""
        lines = [list(map(_clean, row)) for row in rows]
        if not lines:
            return []
        names = [head.rstrip(">") for head in heads]
        widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
        drawn = [
            "  ".join(
                cell.rjust(width) if head.endswith(">") else cell.ljust(width)
                for cell, width, head in zip(line, widths, heads, strict=True)
            ).rstrip()
            for line in (names, *lines)
        ]
        return [self._paint(_BOLD, drawn[0]), *drawn[1:], ""]

    def _instances(self, found: Mapping[str, Any]) -> list[str]:
        rows: list[Row] = []
        for instance in found["instances"]:
            name = instance["name"]
            if not instance["up"]:
                rows.append((name, "DOWN", "-", "-", "-", "-", "-", instance["error"]))
                continue
            status = instance["status"]
            memory = sum(each.get("resident", 0) for each in status["processes"])
            rate, failed = _rates(found["history"], name)
            active = status.get("connections", {}).get("active")
            rows.append((
                name, "up", age(status["uptime"]), str(status["requests"]), rate, failed,
                "-" if active is None else str(active), size(memory),
            ))  # fmt: skip
        heads = ("INSTANCE", "STATE", "UP>", "REQUESTS>", "/S>", "5XX>", "CONN>", "MEMORY")
        return self._table(heads, rows)

    def _upstreams(self, ups: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        rows = [
            (
                f"{name}/{upstream}", peer["server"], peer["state"], str(peer["requests"]),
                str(peer["active"]), str(peer["fails"]),
                f"{peer['response_time']} ms" if "response_time" in peer else "-",
            )
            for name, status in ups
            for upstream, group in status.get("upstreams", {}).items()
            for peer in group["peers"]
        ]  # fmt: skip
        heads = ("UPSTREAM", "SERVER", "STATE", "REQUESTS>", "NOW>", "FAILS>", "MEAN>")
        return self._table(heads, rows)

    def _caches(self, ups: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        rows = [
            (
                f"{name}/{cache}", percent(zone["hit_ratio"]), str(zone["entries"]),
                size(zone["size"]), size(zone["max_size"]), str(zone["stored"]),
                str(zone["evicted"]),
            )
            for name, status in ups
            for cache, zone in status.get("caches", {}).items()
        ]  # fmt: skip
        heads = ("CACHE", "HITS>", "ENTRIES>", "SIZE>", "LIMIT>", "STORED>", "EVICTED>")
        return self._table(heads, rows)

    def _resizer(self, name: str, resizer: Mapping[str, Any]) -> list[str]:
        rows = [
            (
                f"{name}/{lane}", str(resizer["waiting"][lane]), str(resizer["running"][lane]),
                str(done["jobs"]),
                duration(done["seconds"] / done["jobs"]) if done["jobs"] else "-",
            )
            for lane, done in resizer["lanes"].items()
        ]  # fmt: skip
        lines = self._table(("LANE", "WAITING>", "RUNNING>", "DONE>", "MEAN>"), rows)
        jobs = resizer["jobs"]
        lines[-1:] = [
            f"rejected {jobs['rejected']}, timed out {jobs['timeouts']}, crashed "
            f"{jobs['crashes']}, in quarantine {resizer['quarantined']}; "
            f"{resizer['queue']} may wait",
            "",
        ]
        steps = sorted(resizer["steps"].items(), key=lambda item: -item[1]["seconds"])
        lines += self._table(
            ("STEP", "TIMES>", "MEAN>"),
            [(step, str(v["count"]), duration(v["seconds"] / v["count"])) for step, v in steps],
        )
        originals = [
            (each["original"], f"{each['jobs']:g}", duration(each["seconds"]))
            for each in resizer["originals"][:5]
        ]
        return lines + self._table(("ORIGINAL", "JOBS>", "TIME>"), originals)

    def _processes(self, ups: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        farms = {
            each["pid"]: (name, each)
            for name, status in reversed(ups)
            for each in status["processes"]
            if each["role"] == "farm"
        }  # all members tell of it
        others = (
            (name, each)
            for name, status in ups
            for each in status["processes"]
            if each["role"] != "farm"
        )
        rows = [
            (
                name, f"{each['role']} {each.get('number', '')}".rstrip(), str(each["pid"]),
                each.get("state", ""),
                percent(each["cpu"] / each["uptime"]) if each.get("uptime") else "-",
                size(each.get("resident")), str(each.get("descriptors") or "-"),
                age(each.get("uptime")),
            )
            for name, each in (*farms.values(), *others)
        ]  # fmt: skip
        heads = ("INSTANCE", "PROCESS", "PID>", "STATE", "CPU>", "MEMORY>", "FILES>", "AGE>")
        return self._table(heads, rows)

    def _errors(self, ups: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        errors = sorted(
            (each["time"], name, each["level"], each["text"])
            for name, status in ups
            for each in status["errors"]
        )
        if not errors:
            return []
        lines = [
            f"{when} {name} [{level}] {text}"[:MAX_TEXT]
            for when, name, level, text in errors[-MAX_ERRORS:]
        ]
        return [self._paint(_BOLD, "ERRORS"), *map(_clean, lines)]


def _rates(history: Sequence[Mapping[str, Any]], name: str) -> tuple[str, str]:
    """Requests a second, and the share of them that failed, lately."""
    ours = [(each["time"], each["of"][name]) for each in history if name in each["of"]]
    if not ours:
        return "-", "-"
    end, now = ours[-1]
    for when, then in ours[:-1]:
        if end - SPAN <= when < end and then["n"] <= now["n"]:
            asked, failed = now["n"] - then["n"], now["e"] - then["e"]
            share = percent(failed / asked) if asked else "-"
            return f"{asked / (end - when):.1f}", share
    return "-", "-"


def _clean(text: str) -> str:
    """What others have written must not move the cursor."""
    return _UNPRINTABLE.sub("?", text)
