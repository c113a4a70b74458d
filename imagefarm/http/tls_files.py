"""The files that TLS is made of: certificates, their keys, and what trusts whom.

They are read once, by the process that may (the parent, as root), and what a worker makes of them
later comes out of memory. `Files.renew` is for certificates that have been renewed.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from imagefarm.config.errors import Invalid

from .libssl import as_file

#: The most bytes of one file.
MAX_FILE: Final = 4 << 20
#: What the files of ``ssl_password_file`` are called.
PASSWORD_FILE: Final = "password file"
#: Why a file can't be used, where nothing better is known.
_MALFORMED: Final = "it is not in PEM form"


class Files:
    """What the files say, by their paths, as they were when first asked for."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._contents: dict[str, bytes] = dict(contents or {})

    def read(self, what: str, path: str) -> bytes:
        """The content of ``path``, which is ``what``. Raises `Invalid`."""
        found = self._contents.get(path)
        if found is None:
            found = self._contents[path] = read_file(what, path)
        return found

    def renew(self, contents: Mapping[str, bytes]) -> None:
        """From now on files say this."""
        self._contents.update(contents)


def read_file(what: str, path: str) -> bytes:
    """The content of a file. Raises `Invalid` naming it.

    Only passwords come out of a named pipe, and are waited for, as in nginx.
    """
    waits = what == PASSWORD_FILE
    try:
        with open(path, "rb", opener=None if waits else _open_at_once) as file:
            if not waits and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid(f'cannot load {what} "{path}": it is not a regular file')
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        reason = f"({error.errno}: {os.strerror(error.errno or 0)})"
        raise Invalid(f'cannot load {what} "{path}": {reason}') from None
    if len(content) > MAX_FILE:
        raise Invalid(f'cannot load {what} "{path}": it is too large')
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@frozen
class Pair:
    """A certificate with its chain, and its key; ``certificate`` and ``key`` are their paths."""

    certificate: str
    key: str
    chain: tuple[x509.Certificate, ...]
    pem: bytes
    private: Any

    def use(self, context: SSL.Context) -> None:
        """Have ``context`` show it. Raises `Invalid`."""
        try:
            with as_file(self.pem) as path:
                context.use_certificate_chain_file(path)
            context.use_privatekey(self.private)
        except (SSL.Error, TypeError, ValueError) as error:
            raise Invalid(f'cannot load certificate "{self.certificate}": {error}') from None

    def warnings(self, now: datetime.datetime) -> Iterator[str]:
        """What an operator should know of it."""
        first = self.chain[0]
        if first.not_valid_after_utc <= now:
            yield f'certificate "{self.certificate}" has expired on {first.not_valid_after_utc:%F}'
        elif first.not_valid_before_utc > now:
            yield (
                f'certificate "{self.certificate}" is not valid before '
                f"{first.not_valid_before_utc:%F}"
            )


def load_pair(files: Files, certificate: str, key: str, password_file: str = "") -> Pair:
    """The certificate and its key. Raises `Invalid` naming the file that can't be used."""
    chain = load_certificates(files, certificate)
    private = load_key(files, key, password_file)
    kind = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*kind) != chain[0].public_key().public_bytes(*kind):
        raise Invalid(
            f'cannot load certificate key "{key}": it is not the key of certificate '
            f'"{certificate}"'
        )
    return Pair(certificate, key, chain, files.read("certificate", certificate), private)


def load_certificates(files: Files, path: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a file. Raises `Invalid`."""
    content = files.read("certificate", path)
    try:
        found = tuple(x509.load_pem_x509_certificates(content))
        for each in found:
            each.public_key()
    except ValueError:
        raise Invalid(f'cannot load certificate "{path}": {_MALFORMED}') from None
    return found


def load_key(files: Files, path: str, password_file: str = "") -> Any:
    """A private key; each line of ``password_file`` is tried. Raises `Invalid`."""
    content = files.read("certificate key", path)
    given = files.read(PASSWORD_FILE, password_file).splitlines() if password_file else []
    why = _MALFORMED
    for password in (None, *given):
        try:
            return serialization.load_pem_private_key(content, password)
        except TypeError:  # no password is needed, or one is
            why = "it has a password" if password is None else why
        except Exception as error:  # cryptography has an exception of its own for unknown kinds
            if password is not None:
                why = "none of the passwords fits"
            elif not isinstance(error, ValueError):
                why = str(error)
    raise Invalid(f'cannot load certificate key "{path}": {why}')


def trust(context: SSL.Context, files: Files, what: str, path: str) -> None:
    """Have ``context`` trust the certificates, or mind the CRLs, of a file. Raises `Invalid`."""
    content = files.read(what, path)
    store = context.get_cert_store()
    assert store is not None
    try:
        with as_file(content) as name:
            store.load_locations(name)
    except crypto.Error:
        raise Invalid(f'cannot load {what} "{path}": {_MALFORMED}') from None
