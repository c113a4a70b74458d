"""Asking OCSP responders, so that handshakes can tell that a certificate is not revoked.

As in nginx each worker asks for itself, the first time that a client wants to know, and that
client is told nothing yet.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import define, field, frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers

from imagefarm.config.errors import Invalid
from imagefarm.http import ocsp
from imagefarm.http.tls_context import load_pairs
from imagefarm.http.tls_files import Files, Pair, load_certificates
from imagefarm.http.tls_settings import Stapling, TlsSettings

from .logs import fault

#: The most bytes of a response, and the longest that is waited for it, in seconds.
MAX_RESPONSE: Final = 65536
TIMEOUT: Final = 60.0
#: When a responder is asked again: at most, and at least, so much later (nginx).
SELDOM: Final = datetime.timedelta(hours=1)
OFTEN: Final = datetime.timedelta(minutes=5)

#: Fetches what is at an address.
Fetch = Callable[[str], Deferred[bytes]]


@frozen
class Subject:
    """A certificate whose responder can be asked."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    url: str
    path: str


def subjects(settings: TlsSettings, files: Files) -> Iterator[Subject | str]:
    """Of whom there is something to ask; of the others, why there isn't, in nginx's words.

    Raises `Invalid`.
    """
    stapling = settings.stapling
    if stapling is None or stapling.file:
        return
    trusted = load_certificates(files, settings.trusted) if settings.trusted else ()
    for pair in load_pairs(settings, files):
        yield _subject(pair, stapling, trusted)


def _subject(pair: Pair, stapling: Stapling, trusted: Sequence[x509.Certificate]) -> Subject | str:
    ignored = '"ssl_stapling" ignored,'
    certificate = pair.chain[0]
    issuer = ocsp.find_issuer(certificate, (*pair.chain[1:], *trusted))
    if issuer is None:
        return f'{ignored} issuer certificate not found for certificate "{pair.certificate}"'
    if stapling.verify and issuer not in trusted:
        return (
            f'{ignored} the issuer of certificate "{pair.certificate}" is not in '
            '"ssl_trusted_certificate"'
        )
    responder = stapling.responder or ocsp.responder_of(certificate)
    if not responder:
        return f'{ignored} no OCSP responder URL in the certificate "{pair.certificate}"'
    if not responder.startswith("http://"):
        return (
            f'{ignored} invalid URL prefix in OCSP responder "{responder}" in the certificate '
            f'"{pair.certificate}"'
        )
    url = ocsp.address(responder, certificate, issuer)
    return Subject(certificate, issuer, url, pair.certificate)


@define(eq=False)
class _Known:
    """What is known of one certificate."""

    subject: Subject
    staple: ocsp.Staple | None = None
    #: When the responder is to be asked again; None if it never was.
    due: datetime.datetime | None = None
    asking: bool = False


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@define(eq=False)
class Stapler:
    """The responses of a server's certificates: `http.tls_context.Staple`. Raises `Invalid`.

    ``fetch`` gives the means to ask, None where there is none (yet).
    """

    settings: TlsSettings
    files: Files
    fetch: Callable[[], Fetch | None]
    now: Callable[[], datetime.datetime] = _now
    _fixed: bytes = b""
    _known: dict[x509.Certificate, _Known] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        stapling = self.settings.stapling
        if stapling is not None and stapling.file:
            self._fixed = self.files.read("OCSP response", stapling.file)
            try:
                ocsp.parse(self._fixed)
            except ocsp.Unusable as error:
                raise Invalid(f'cannot load OCSP response "{stapling.file}": {error}') from None
        for subject in subjects(self.settings, self.files):
            if isinstance(subject, Subject):
                self._known[subject.certificate] = _Known(subject)

    def __call__(self, connection: SSL.Connection) -> bytes:
        """What is stapled for the certificate that is shown; b"" for nothing."""
        if self._fixed or not self._known:
            return self._fixed
        shown: Any = connection.get_certificate(as_cryptography=True)
        known = self._known.get(shown)
        return b"" if known is None else self._tell(known)

    def _tell(self, known: _Known) -> bytes:
        now = self.now()
        if not known.asking and (known.due is None or known.due <= now):
            self._ask(known)
        staple = known.staple
        if staple is None or (staple.until is not None and staple.until <= now):
            return b""
        return staple.response

    def _ask(self, known: _Known) -> None:
        fetch = self.fetch()
        if fetch is None:
            return
        known.asking = True
        asked = fetch(known.subject.url)
        asked.addCallback(self._learn, known).addErrback(self._missed, known)

    def _learn(self, response: bytes, known: _Known) -> None:
        now, subject = self.now(), known.subject
        staple = ocsp.check(response, subject.certificate, subject.issuer, now)
        due = now + SELDOM
        if staple.until is not None:
            due = max(min(staple.until - OFTEN, due), now + OFTEN)
        known.staple, known.due, known.asking = staple, due, False

    def _missed(self, failure: Failure, known: _Known) -> None:
        known.due, known.asking = self.now() + OFTEN, False
        path = known.subject.path
        fault(f'{_reason(failure)} while requesting certificate status, certificate: "{path}"')


def _reason(failure: Failure) -> str:
    """One line."""
    # What a request failed of is inside of what it failed with.
    while reasons := getattr(failure.value, "reasons", None):
        failure = reasons[0]
    if failure.check(ocsp.Unusable):
        return str(failure.value)
    kind = type(failure.value).__name__
    return f"OCSP responder could not be asked ({kind}: {failure.getErrorMessage()})"


class _Body(Protocol):
    """Collects a response's body."""

    def __init__(self) -> None:
        self.complete: Deferred[bytes] = Deferred()
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        """More of it."""
        self._data += data
        transport: Any = self.transport
        if len(self._data) > MAX_RESPONSE and transport is not None:
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was it."""
        if len(self._data) > MAX_RESPONSE:
            self.complete.errback(ocsp.Unusable("the OCSP response is too large"))
        elif reason.check(ResponseDone):
            self.complete.callback(self._data)
        else:
            self.complete.errback(reason)


def fetching(reactor: Any) -> Fetch:
    """How addresses are fetched with ``reactor``."""
    agent = Agent(reactor, connectTimeout=TIMEOUT)

    def fetch(url: str) -> Deferred[bytes]:
        accept = Headers({"Accept": ["application/ocsp-response"]})
        asked: Deferred[Any] = agent.request(b"GET", url.encode("ascii", "replace"), accept)
        return asked.addCallback(_body).addTimeout(TIMEOUT, reactor)

    return fetch


def _body(response: Any) -> Deferred[bytes]:
    if response.code != 200:
        raise ocsp.Unusable(f"OCSP responder sent status {response.code}")
    body = _Body()
    response.deliverBody(body)
    return body.complete
