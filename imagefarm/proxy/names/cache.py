"""What is known of names, for how long, and when to ask: decisions only.

An answer is fresh for its TTL, or for ``valid``. When it has expired somebody asks; as long as
that fails, the old answer may still be used, up to `MAX_STALE` (RFC 8767). That a name does not
exist is an answer like others. Failures without an older answer are remembered for a moment, so
that a nameserver in trouble is not asked for every request (RFC 9520).

Times are seconds of any monotonic clock and always an argument.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

from .reply import Answer, Item, Question

#: How long after it expired an answer may still be used while nobody gives a new one.
MAX_STALE: Final = 86400.0
#: The least time that an answer is used, whatever its TTL.
MIN_TTL: Final = 1.0
#: How long a negative answer is remembered at most (RFC 2308 section 5), and one without SOA.
MAX_NEGATIVE: Final = 300.0
NEGATIVE: Final = 5.0
#: After a failure the next try waits so long; with an old answer twice as long each time, up to
RETRY: Final = 1.0
MAX_RETRY: Final = 8.0
#: Questions that are remembered; the one whose answer is the oldest makes room.
MAX_QUESTIONS: Final = 4096


@frozen
class Found:
    """What is known now.

    ``items`` None: nothing, so either ``code`` tells the last failure, or nobody has asked.
    ``fresh``: nobody needs to ask before ``again``. Else the items are old, ``code`` is the
    failure of the last attempt to renew them, and ``again`` is when the next one may be made.
    ``ask``: whoever got this has to ask and then to call `NameCache.learnt` or `failed`.
    """

    items: tuple[Item, ...] | None
    fresh: bool
    again: float
    code: int | None = None
    ask: bool = False


@define
class _Entry:
    items: tuple[Item, ...] | None = None
    #: The end of the items' freshness.
    until: float = float("-inf")
    #: Since the last answer: how many attempts failed, how, and when the next one may be made.
    failures: int = 0
    code: int | None = None
    retry: float = float("-inf")
    asking: bool = False


@define
class NameCache:
    """``valid`` replaces every answer's TTL unless it is 0; ``stale`` and ``size``: limits."""

    valid: float = 0.0
    stale: float = MAX_STALE
    size: int = MAX_QUESTIONS
    _entries: dict[Question, _Entry] = field(factory=dict)

    def look(self, question: Question, now: float) -> Found:
        """What is known of ``question``; at most one caller at a time is told to ask."""
        entry = self._entries.get(question)
        if entry is None:
            entry = self._admit(question, _Entry())
        elif now < entry.until:
            return Found(entry.items, True, entry.until)
        elif entry.items is not None and (not entry.items or now >= entry.until + self.stale):
            entry.items = None  # that there was nothing is no help once it is old
        ask = not entry.asking and now >= entry.retry
        entry.asking = entry.asking or ask
        return Found(entry.items, False, entry.retry, entry.code, ask)

    def learnt(self, question: Question, answer: Answer, now: float) -> None:
        """A nameserver has answered."""
        entry = self._entries.pop(question, None) or _Entry()
        self._admit(question, entry)
        entry.items, entry.until = answer.items, now + self._lifetime(answer)
        entry.failures, entry.code, entry.retry = 0, None, float("-inf")
        entry.asking = False

    def failed(self, question: Question, code: int, now: float) -> None:
        """Nobody has answered, or with a failure."""
        entry = self._entries.get(question)
        if entry is None:
            entry = self._admit(question, _Entry())
        # With an old answer at hand there is no hurry. The exponent's bound is beyond the other.
        haste = 0 if entry.items is None else min(entry.failures, 8)
        entry.retry = now + min(RETRY * 2.0**haste, MAX_RETRY)
        entry.failures += 1
        entry.code = code
        entry.asking = False

    def _lifetime(self, answer: Answer) -> float:
        if self.valid:
            return self.valid
        if answer.items:
            return max(MIN_TTL, answer.ttl or 0.0)
        ttl = NEGATIVE if answer.ttl is None else answer.ttl
        return max(MIN_TTL, min(ttl, MAX_NEGATIVE))

    def _admit(self, question: Question, entry: _Entry) -> _Entry:
        if len(self._entries) >= self.size:
            del self._entries[next(iter(self._entries))]
        self._entries[question] = entry
        return entry

    def __len__(self) -> int:
        return len(self._entries)
