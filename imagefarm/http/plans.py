"""Remembered answers: the fast path for requests that have been answered before.

The ordinary path answers a request first. If nothing but the request's own bytes and some files
had a say in the answer (`Response.headers_at`), it is remembered as a `Plan`: the files with what
they were (`Request.witnesses`), the head, and the body. The next request with the same bytes is
answered from the plan: each file is looked at with one stat (or in the ``open_file_cache``), and
head and body go out in one write. A plan can never give an answer that the ordinary path would
not have given; a file that has changed in any way, or come into being, sends the request down the
ordinary path.

Clients send the same header block (all after the request line) again and again, so what it means
is remembered too: `Block`. Answers in which no header but Host had a say are shared by all usual
blocks of a host; others (conditions, ranges, compression) belong to one exact block.
"""

from __future__ import annotations

from typing import Final

from .families import MAX_BODY, Family, Member, belongs, founds_family, split
from .hits import Hit, HitFamily, HitMember, memorable
from .message import FileBody, Request, Response
from .parser import ParsedHead
from .plan import Plan
from .relays import Relay

#: How many header blocks and plans one listening socket remembers. When there are more, all of
#: the kind are forgotten: that is cheaper than a record of use, and they are learnt again.
MAX_BLOCKS: Final = 8192
MAX_PLANS: Final = 131072
#: The longest header block and request line worth remembering, in bytes.
MAX_BLOCK: Final = 2048
MAX_LINE: Final = 1024
#: Families of files that one listening socket remembers, and of how many members it remembers
#: that they have been asked for once.
MAX_FAMILIES: Final = 8192
MAX_SEEN: Final = 65536
#: Of how many hits of a cache it remembers what their header blocks said: some 300 bytes each.
MAX_RECORDS: Final = 131072
#: The bytes of bodies kept in memory by one listening socket.
MAX_BODIES: Final = 64 << 20
#: A file that has changed within so many seconds is read anew each time: two changes within one
#: tick of the kernel's clock could have the same time stamp.
RACY: Final = 0.1

#: Fields that make a request one that has to be parsed each time.
_NEVER: Final = frozenset({
    b"expect", b"upgrade", b"content-length", b"transfer-encoding", b"te", b"trailer",
})  # fmt: skip
#: Fields that change the answer for those who send them.
_SPECIAL: Final = frozenset({
    b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since",
    b"if-unmodified-since", b"via",
})  # fmt: skip
#: What is remembered for one request line.
Remembered = Plan | Member | HitMember


class Host:
    """What is known of one value of Host, for all usual header blocks."""

    __slots__ = ("families", "plans", "relays")

    def __init__(self) -> None:
        self.plans: dict[bytes, Remembered] = {}
        #: By the request line without the name.
        self.families: dict[bytes, Family | HitFamily] = {}
        self.relays: dict[bytes, Relay] = {}


class Block:
    """What a header block means, for requests in HTTP/1.1 without a body."""

    __slots__ = ("headers", "host", "keep", "own")

    def __init__(self, parsed: ParsedHead, host: Host | None) -> None:
        self.headers = parsed.head.headers
        self.keep = parsed.keep_alive
        #: Where plans that are shared with other blocks are found.
        self.host = host
        #: Plans of this block alone, by request line.
        self.own: dict[bytes, Remembered] = {}

    def find(self, line: bytes) -> Remembered | None:
        """The plan for a request line."""
        plan = self.own.get(line) if self.own else None
        if plan is None and self.host is not None:
            plan = self.host.plans.get(line)
        return plan


class Plans:
    """What one listening socket remembers."""

    __slots__ = (
        "_bodies", "_count", "_dates", "_families", "_hosts", "_records", "_seen", "_special",
        "_usual",
    )  # fmt: skip

    def __init__(self) -> None:
        self._usual: dict[bytes, Block] = {}
        self._special: dict[bytes, Block] = {}
        self._hosts: dict[bytes, Host] = {}
        self._dates: dict[int, bytes] = {}
        self._seen: set[int] = set()
        self._count = 0
        self._families = 0
        self._bodies = 0
        self._records = 0

    def __repr__(self) -> str:
        return (
            f"<Plans {len(self._usual)}+{len(self._special)} blocks {self._count} plans "
            f"{self._families} families {self._bodies} bytes>"
        )

    def find(self, data: bytes, end: int, now: float) -> tuple[Block, Remembered, bytes] | None:
        """How to answer ``data``, a whole request whose request line ends at ``end``."""
        rest = data[end:]
        block = self._usual.get(rest) or self._special.get(rest)
        if block is None:
            return None
        line = data[:end]
        plan = block.find(line)
        if plan is not None:
            if plan.holds(now):
                body = plan.body
                if body is not None:
                    return block, plan, body
                body = plan.read()
                if body is not None:
                    self._keep(plan, body, now)
                    return block, plan, body
            self._drop(block, line)
        host = block.host
        if host is None or not host.families or (parts := split(line)) is None:
            return None
        family = host.families.get(parts[0])
        if family is None:
            return None
        member = family.member(line, parts[1], block.headers, now)
        if member is None:
            return None
        body = member.body
        assert body is not None
        self._consider(block.own if member.own else host.plans, member, now)
        return block, member, body

    def relay(self, data: bytes, end: int) -> tuple[Block, Relay, bytes] | None:
        """How to pass on ``data``, which `find` knows no answer to."""
        block = self._usual.get(data[end:])
        if block is None or block.host is None or not block.host.relays:
            return None
        line = data[:end]
        parts = split(line)
        relay = None if parts is None else block.host.relays.get(parts[0])
        if parts is None or relay is None or not belongs(relay.alike, line, parts[1]):
            return None
        return block, relay, line

    def know(self, data: bytes, end: int, parsed: ParsedHead) -> None:
        """Remember what the header block of ``data`` means, if it is one of a simple request."""
        head, block = parsed.head, data[end:]
        if not head.target.startswith(b"/"):
            return  # an absolute target has a host of its own
        if head.version != (1, 1) or parsed.length != 0 or len(block) > MAX_BLOCK:
            return
        names = {name.lower() for name, _ in head.headers}
        if names & _NEVER:
            return
        if names & _SPECIAL:
            if len(self._special) >= MAX_BLOCKS:
                self._special.clear()
            self._special[block] = Block(parsed, None)
        else:
            if len(self._usual) >= MAX_BLOCKS:
                self.forget()
            host = self._hosts.get(parsed.host)
            if host is None:
                host = self._hosts[parsed.host] = Host()
            self._usual[block] = Block(parsed, host)

    def learn(
        self, data: bytes, end: int, request: Request, response: Response, framing: bytes
    ) -> None:
        """Remember how ``request``, which came as ``data``, was answered."""
        rest, body, headers_at = data[end:], response.body, response.headers_at
        if request.route is not None:
            self._learn_relay(data, end, request, response)
            return
        block = self._usual.get(rest) or self._special.get(rest)
        if block is None or headers_at is None or end > MAX_LINE:
            return
        if request.head.version != (1, 1):
            return  # its block means something else in HTTP/1.0
        length = len(body) if isinstance(body, bytes) else getattr(body, "length", None)
        target = (request.received or request.head).target
        if length is None or length > MAX_BODY or not target.startswith(b"/"):
            return
        if not isinstance(body, bytes | FileBody):
            return
        if response.status == 206 and b"content-range" not in response.headers:
            return  # HEAD for several parts, whose boundary is another one each time
        if self._count >= MAX_PLANS or self._families >= MAX_FAMILIES:
            self.forget()
            return
        line, host = data[:end], block.host
        shared = response.shared and host is not None
        kept = response.kept
        if kept is not None and not memorable(response):
            return
        own = kept is not None and (kept.by_block or kept.chosen)
        plans = host.plans if shared and host is not None and not own else block.own
        self._count += line not in plans
        make = Plan if kept is None else Hit
        plans[line] = make(request, response, framing, headers_at)
        parts = split(line)
        if shared and host is not None and parts is not None and founds_family(response):
            self._found(host, parts[0], request, response)

    def _found(self, host: Host, kind: bytes, request: Request, response: Response) -> None:
        """Remember how others are answered by how one was."""
        families = host.families
        known = families.get(kind)
        if isinstance(known, HitFamily):
            if known.akin(response) and not known.full:
                known.learn(response)
                return
            self._records -= len(known.records)
        self._families += known is None
        if response.kept is None:
            families[kind] = Family(request, response, self._dates)
        else:
            families[kind] = fresh = HitFamily(request, response)
            fresh.learn(response)

    def _learn_relay(self, data: bytes, end: int, request: Request, response: Response) -> None:
        line, block, parts = data[:end], self._usual.get(data[end:]), split(data[:end])
        if block is None or block.host is None or parts is None or response.alike is None:
            return
        if request.head.version != (1, 1) or end > MAX_LINE:
            return
        relays = block.host.relays
        relay = relays.get(parts[0])
        if relay is None:
            if self._families >= MAX_FAMILIES:
                self.forget()
                return
            self._families += 1
            relay = relays[parts[0]] = Relay(request, request.route, response.alike)
        if belongs(relay.alike, line, parts[1]):
            relay.learn(block, request, response, request.route)

    def _consider(
        self, plans: dict[bytes, Remembered], member: Member | HitMember, now: float
    ) -> None:
        """Keep a file that is asked for again; one that changes all the time is not worth it."""
        if isinstance(member, HitMember) and member.kind >= 0 and now - member.changed > RACY:
            self._note(member)
        seen, line = self._seen, member.line
        mark = hash(line)
        if mark not in seen:
            if len(seen) >= MAX_SEEN:
                seen.clear()
            seen.add(mark)
            return
        size = len(member.body or b"")
        if self._count >= MAX_PLANS or self._bodies + size > MAX_BODIES:
            return
        # What is kept has to be what was there all the time while it was read.
        if now - member.changed > RACY and member.holds(now):
            self._bodies += size
            self._count += line not in plans
            plans[line] = member

    def _note(self, member: HitMember) -> None:
        if self._records >= MAX_RECORDS:
            self._records = 0
            for host in self._hosts.values():
                for family in host.families.values():
                    if isinstance(family, HitFamily):
                        family.records.clear()
        self._records += member.family.note(member)

    def _keep(self, plan: Remembered, body: bytes, now: float) -> None:
        """Keep a body in memory, if its file has been at rest for long enough."""
        if isinstance(plan, Plan) and plan.look is not None:
            return
        if now - plan.changed > RACY and self._bodies + len(body) <= MAX_BODIES:
            plan.body = body
            self._bodies += len(body)

    def _drop(self, block: Block, line: bytes) -> None:
        """Forget a plan that holds no longer."""
        plan = block.own.pop(line, None)
        if plan is None and block.host is not None:
            plan = block.host.plans.pop(line, None)
        if plan is not None:
            self._count -= 1
            if not isinstance(plan, Plan) or not isinstance(plan.response.body, bytes):
                self._bodies -= len(plan.body or b"")

    def forget(self) -> None:
        """Forget everything."""
        for host in self._hosts.values():
            host.plans.clear()
            host.families.clear()
            host.relays.clear()
        self._hosts.clear()
        self._usual.clear()
        self._special.clear()
        self._seen.clear()
        self._count = self._families = self._bodies = self._records = 0
