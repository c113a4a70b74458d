"""The certificates of a configuration: what its workers have in common, and their renewal.

The parent reads the files, as whoever it is, and looks every second whether a certificate or its
key has become another one (certbot swaps symbolic links). A new pair that fits is put where the
workers, forks of the parent, see it: in memory that they share, since they may not be allowed to
read the key. They then serve it to new connections; nobody is restarted. A pair that does not fit
is said so once, and the former one stays.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field
from OpenSSL import SSL
from twisted.internet.task import LoopingCall

from imagefarm.config.errors import Invalid
from imagefarm.http.tls_context import Kinship, Secured, make_context
from imagefarm.http.tls_files import PASSWORD_FILE, Files, load_pair, read_file
from imagefarm.http.tls_settings import TlsSettings

from .logs import fault, notice
from .stapling import Fetch, Stapler, fetching

#: How often files, and what others have found in them, are looked at, in seconds.
INTERVAL: Final = 1.0
#: The most bytes of renewed certificates and keys (as JSON).
MAX_RENEWED: Final = 8 << 20
#: So long a ticket key is kept at most where reloads come, in seconds.
MAX_AGE: Final = 86400.0

# Version, where the text is, its length. As on a `Board`, the text is written to the place that
# the head does not point to; only the parent writes.
_HEAD: Final = struct.Struct("=QQQ")
_PLACES: Final = (4096, 4096 + MAX_RENEWED)

Context = tuple[SSL.Context, bytes]
#: What tells a file from another one under the same name.
Signature = tuple[tuple[int, ...] | None, ...]


class Bases:
    """The contexts that connections begin with. With them ticket keys outlive reloads.

    ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Kinship, tuple[Context, float]] = {}

    def find(self, kinship: Kinship, make: Callable[[], Context]) -> Context:
        """The context for ``kinship`` and what it was made of. Raises what ``make`` raises."""
        now = self._clock()
        young = {each: known for each, known in self._known.items() if now - known[1] < MAX_AGE}
        self._known = young
        if kinship not in young:
            young[kinship] = make(), now
        return young[kinship][0]


class _Blackboard:
    """Memory that a process shares with its forks; it writes, and all read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PLACES[1] + MAX_RENEWED)

    @property
    def version(self) -> int:
        """Grows with each `write`."""
        version: int = _HEAD.unpack_from(self._memory)[0]
        return version

    def write(self, contents: dict[str, bytes]) -> None:
        """Let all know. Raises `Invalid` if it is too much."""
        said = {path: base64.b64encode(content).decode() for path, content in contents.items()}
        text = json.dumps(said).encode()
        if len(text) > MAX_RENEWED:
            raise Invalid(f"renewed certificates and keys take more than {MAX_RENEWED} bytes")
        version = self.version
        place = _PLACES[version % 2]
        self._memory[place : place + len(text)] = text
        _HEAD.pack_into(self._memory, 0, version + 1, place, len(text))

    def read(self) -> tuple[int, dict[str, bytes]]:
        """The version and what was written."""
        while True:
            head = _HEAD.unpack_from(self._memory)
            version, place, length = head
            text = self._memory[place : place + length] or b"{}"
            if _HEAD.unpack_from(self._memory) == head:
                said = json.loads(text)
                return version, {path: base64.b64decode(each) for path, each in said.items()}


@define(eq=False)
class _Watched:
    """A certificate and its key: as they were when they were last looked at."""

    paths: tuple[str, str]
    password_file: str
    seen: Signature
    #: It has changed, and may go on to: a pair is two files. At first it may have changed since it
    #: was read.
    changing: bool = True


@define(eq=False)
class Certificates:
    """The TLS of one configuration. Made by the parent, and forked with it.

    Servers with equal settings have one context.
    """

    bases: Bases = field(factory=Bases)
    files: Files = field(factory=Files)
    _begun: dict[Kinship, Context] = field(factory=dict)
    _made: dict[TlsSettings, Context] = field(factory=dict)
    _watched: dict[tuple[str, str], _Watched] = field(factory=dict)
    _renewed: dict[str, bytes] = field(factory=dict)
    _blackboard: _Blackboard | None = None
    _seen: int = 0
    _calls: list[Any] = field(factory=list)
    _fetch: Fetch | None = None

    def base(self, kinship: Kinship) -> SSL.Context:
        """What connections of an address begin with. Raises `Invalid`."""
        if kinship not in self._begun:
            self._begun[kinship] = self.bases.find(kinship, lambda: self._base(kinship))
        return self._begun[kinship][0]

    def _base(self, kinship: Kinship) -> Context:
        first = kinship.settings[0]
        return make_context(first, self.files, identity=kinship.identity), self._digest(first)

    def secured(self, settings: TlsSettings, kinship: Kinship) -> Secured:
        """A server of that address. Raises `Invalid`."""
        for certificate, key in settings.pairs:
            self._watch(certificate, key, settings.password_file)
        base, digest = self.base(kinship), self._digest(settings)
        usual = settings == kinship.settings[0] and settings.stapling is None
        if usual and self._begun[kinship][1] == digest:
            return Secured(settings, base, digest)
        return Secured(settings, *self._context(settings))

    def _context(self, settings: TlsSettings) -> Context:
        digest = self._digest(settings)
        known = self._made.get(settings)
        if known is None or known[1] != digest:
            staple = None
            if settings.stapling is not None:
                staple = Stapler(settings, self.files, lambda: self._fetch)
            known = self._made[settings] = make_context(settings, self.files, staple), digest
        return known

    def _digest(self, settings: TlsSettings) -> bytes:
        """Of what the certificates of ``settings`` are now. Raises `Invalid`."""
        digest = hashlib.sha256()
        for certificate, key in settings.pairs:
            digest.update(hashlib.sha256(self.files.read("certificate", certificate)).digest())
            digest.update(hashlib.sha256(self.files.read("certificate key", key)).digest())
        return digest.digest()

    # Renewal: in the parent

    def _watch(self, certificate: str, key: str, password_file: str) -> None:
        if (certificate, key) not in self._watched:
            seen = _signature(certificate, key)
            watched = _Watched((certificate, key), password_file, seen)
            self._watched[certificate, key] = watched
            if self._blackboard is None:
                self._blackboard = _Blackboard()

    def start(self, reactor: Any) -> None:
        """Look at the files from now on."""
        if self._watched:
            self._repeat(reactor, self.look)

    def stop(self) -> None:
        """Look at nothing any more."""
        for call in self._calls:
            call.stop()
        self._calls.clear()

    def _repeat(self, reactor: Any, function: Callable[[], None]) -> None:
        call = LoopingCall(function)
        call.clock = reactor
        call.start(INTERVAL, now=False)
        self._calls.append(call)

    def look(self) -> None:
        """See whether a certificate has been renewed, and has come to rest."""
        for watched in self._watched.values():
            found = _signature(*watched.paths)
            if found != watched.seen:
                watched.seen, watched.changing = found, True
            elif watched.changing:
                watched.changing = False
                self._renew(watched)

    def _renew(self, watched: _Watched) -> None:
        certificate, key = watched.paths
        try:
            contents = {
                certificate: read_file("certificate", certificate),
                key: read_file("certificate key", key),
            }
            if all(self.files.read("", path) == said for path, said in contents.items()):
                return
            files = Files(contents)
            if watched.password_file and not os.path.isfile(watched.password_file):
                # A pipe gives its passwords once, and has whoever opens it wait for a writer.
                known = self.files.read(PASSWORD_FILE, watched.password_file)
                files.renew({watched.password_file: known})
            pair = load_pair(files, certificate, key, watched.password_file)
            renewed = {**self._renewed, **contents}
            assert self._blackboard is not None
            self._blackboard.write(renewed)
        except Invalid as error:
            fault(f"{error}; the former certificate stays in force")
            return
        self._renewed = renewed
        self.files.renew(contents)
        until = pair.chain[0].not_valid_after_utc
        notice(f'certificate "{certificate}" was renewed, it is valid until {until:%F}')

    # Renewal: in those that serve

    def follow(self, reactor: Any, servers: Sequence[Secured]) -> None:
        """Have ``servers`` show what was renewed, from now on."""
        self._fetch = fetching(reactor)
        if self._blackboard is None:
            return
        self._calls.clear()  # in a fork those are the parent's
        self._repeat(reactor, lambda: self.adopt(servers))

    def adopt(self, servers: Sequence[Secured]) -> None:
        """See whether something was renewed."""
        board = self._blackboard
        if board is None or board.version == self._seen:
            return
        self._seen, contents = board.read()
        self.files.renew(contents)
        for server in servers:
            if self._digest(server.settings) != server.made_of:
                try:
                    server.context, server.made_of = self._context(server.settings)
                except Invalid as error:
                    fault(f"{error}; the former certificate stays in force")


def _signature(*paths: str) -> Signature:
    return tuple(map(_status, paths))


def _status(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
