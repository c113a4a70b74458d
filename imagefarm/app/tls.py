"""The TLS of a listening address, made from the ``server`` blocks that are served there."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import Scope
from imagefarm.http import libssl
from imagefarm.http.tls import CERTIFICATE, SELF_SIGNED
from imagefarm.http.tls_context import Kinship, Secured, SniContexts, load_pairs
from imagefarm.http.tls_settings import TlsSettings
from imagefarm.process.certificate import ensure_self_signed
from imagefarm.resources.build import Listener, server_names

from .certificates import Certificates
from .doors import place_of
from .stapling import subjects


def contexts(
    listener: Listener, certificates: Certificates, *, hello: bool
) -> tuple[SniContexts, list[Problem]]:
    """The servers of a listening address, and what an operator should know of them.

    ``hello`` keeps what clients have offered, for variables. Raises `ConfigurationError`.
    """
    found: list[Problem] = []
    warnings: list[Problem] = []
    settings: list[TlsSettings] = []
    for scope in listener.servers:
        with _noting(scope, found):
            settings.append(_settings(scope))
            warnings += _warnings(scope, settings[-1], certificates)
    _raise(found)
    made: list[Secured] = []
    with _noting(listener.servers[0], found):
        kinship = Kinship.of(listener.listen.address, settings, certificates.files)
        base = certificates.base(kinship)
    _raise(found)
    for scope, each in zip(listener.servers, settings, strict=True):
        with _noting(scope, found):
            made.append(certificates.secured(each, kinship))
    _raise(found)
    if hello:
        libssl.keep_hello(base)
    if len(set(settings)) == 1:
        return SniContexts(base, made[0]), warnings
    names = server_names(listener, made)
    chosen = SniContexts(base, made[0], lambda name: names.find(name).item, made[1:])
    return chosen, warnings


def _settings(scope: Scope) -> TlsSettings:
    settings = TlsSettings.from_scope(scope)
    if settings is None:
        raise Invalid('no "ssl_certificate" is defined for the "listen ... ssl" directive')
    if scope[SELF_SIGNED]:
        now = datetime.datetime.now(datetime.UTC)
        for pair in settings.pairs:
            ensure_self_signed(*pair, now)
    return settings


def _warnings(
    scope: Scope, settings: TlsSettings, certificates: Certificates
) -> Iterator[Problem]:
    now = datetime.datetime.now(datetime.UTC)
    for pair in load_pairs(settings, certificates.files):
        for text in pair.warnings(now):
            yield _problem(scope, text)
    for subject in subjects(settings, certificates.files):
        if isinstance(subject, str):
            yield _problem(scope, subject)


@contextmanager
def _noting(scope: Scope, found: list[Problem]) -> Iterator[None]:
    """Put what is wrong with a server among the problems."""
    try:
        yield
    except Invalid as error:
        found.append(_problem(scope, str(error)))


def _problem(scope: Scope, text: str) -> Problem:
    """``text`` at the server's certificate, or where the server begins."""
    try:
        directive = place_of(scope, CERTIFICATE)
    except LookupError:
        assert scope.directive is not None
        directive = scope.directive
    return Problem(text, directive.file, directive.line)


def _raise(found: list[Problem]) -> None:
    if found:  # several servers may have the same certificate
        raise ConfigurationError(list(dict.fromkeys(found)))
