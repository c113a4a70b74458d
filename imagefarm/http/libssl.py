"""What OpenSSL can do and pyOpenSSL has no method for, through the bindings beneath it.

Nothing of this is called for each request. What a future pyOpenSSL may no longer have is looked
up when it is needed, so that what does not ask for it goes on to work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from OpenSSL import SSL

_ssl: Final[Any] = SSL
_ffi: Final[Any] = getattr(_ssl, "_ffi", None)
_lib: Final[Any] = getattr(_ssl, "_lib", None)

#: Alert 112 (RFC 6066 section 3).
_UNRECOGNIZED_NAME: Final = 112
#: X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, which is what OpenSSL says where it may not go further.
_NO_ISSUER: Final = 2

#: ``X509_print_ex`` of the subject, of the issuer, and of nothing else (openssl/x509.h).
_ONLY_SUBJECT: Final = 0xFFF & ~0x40 | 0x1000
_ONLY_ISSUER: Final = 0xFFF & ~0x10 | 0x1000
#: XN_FLAG_RFC2253
_RFC2253: Final = 0x1110317

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1


class Refused(Exception):
    """OpenSSL does not take it."""


def forget_errors() -> str:
    """Empty OpenSSL's queue of errors; the words of the last."""
    words = ""
    while code := _lib.ERR_get_error():
        reason = _lib.ERR_reason_error_string(code)
        words = _ffi.string(reason).decode("ascii", "replace") if reason != _ffi.NULL else words
    return words


def _check(result: int) -> None:
    if result != 1:
        raise Refused(forget_errors())


def set_groups(context: SSL.Context, names: str) -> None:
    """Which groups keys are exchanged in (``SSL_CTX_set1_groups_list``). Raises `Refused`."""
    _check(_lib.SSL_CTX_set1_curves_list(_of(context), names.encode()))


def set_signature_algorithms(context: SSL.Context, names: str) -> None:
    """``SSL_CTX_set1_sigalgs_list``. Raises `Refused`."""
    _check(_lib.SSL_CTX_set1_sigalgs_list(_of(context), names.encode()))


def announce_authorities(context: SSL.Context, file: bytes) -> None:
    """Tell clients whose certificates are wanted: those of ``file``. Raises `Refused`."""
    names = _lib.SSL_load_client_CA_file(file)
    if names == _ffi.NULL:
        raise Refused(forget_errors())
    _lib.SSL_CTX_set_client_CA_list(_of(context), names)


def _of(context: SSL.Context) -> Any:
    found: Any = context
    return found._context


# Callbacks, which have to live as long as what they are set on.


def on_server_name(context: SSL.Context, choose: Callable[[SSL.Connection], bool]) -> None:
    """Have ``choose`` look at each ClientHello, with or without a name; False refuses it.

    A context may be given another callback, also after it has been used.
    """

    def called(ssl: Any, alert: Any, _: Any) -> int:
        if choose(_ssl.Connection._reverse_mapping[ssl]):
            return 0
        alert[0] = _UNRECOGNIZED_NAME
        fatal: int = _lib.SSL_TLSEXT_ERR_ALERT_FATAL
        return fatal

    callback = _ffi.callback("int (*)(SSL *, int *, void *)", called, error=2)
    _lib.SSL_CTX_set_tlsext_servername_callback(_of(context), callback)
    kept: Any = context
    kept._tlsext_servername_callback = callback  # where pyOpenSSL keeps its own


@cache
def verifier(depth: int) -> Any:
    """A callback for `ask_for_certificate`: whatever is wrong, the handshake goes on, and what it
    was is the connection's `verify_result`, also when its session is resumed.

    At most ``depth`` certificates may stand between the client's and a trusted one.
    """

    def called(fine: int, store: Any) -> int:
        if fine and _lib.X509_STORE_CTX_get_error_depth(store) > depth + 1:
            _lib.X509_STORE_CTX_set_error(store, _NO_ISSUER)
        return 1

    return _ffi.callback("int (*)(int, X509_STORE_CTX *)", called, error=0)


def ask_for_certificate(whom: SSL.Context | SSL.Connection, callback: Any) -> None:
    """Have clients asked for a certificate; ``callback`` is a `verifier`."""
    found: Any = whom
    mode = _lib.SSL_VERIFY_PEER
    if isinstance(whom, SSL.Context):
        _lib.SSL_CTX_set_verify(found._context, mode, callback)
    else:
        _lib.SSL_set_verify(found._ssl, mode, callback)


def keep_hello(context: SSL.Context) -> None:
    """Keep each connection's ClientHello as its ``app_data``."""
    _lib.SSL_CTX_set_msg_callback(_of(context), _hello_keeper())


@cache
def _hello_keeper() -> Any:
    def called(
        sent: int, _version: int, kind: int, data: Any, size: int, ssl: Any, _: Any
    ) -> None:
        if kind != _HANDSHAKE or sent or not size:
            return
        message = _ffi.buffer(data, size)
        if message[0] == bytes((_CLIENT_HELLO,)):
            connection = _ssl.Connection._reverse_mapping.get(ssl)
            if connection is not None:
                connection.set_app_data(message[:])

    form = "void (*)(int, int, int, const void *, size_t, SSL *, void *)"
    return _ffi.callback(form, called)


# What is known of a connection.


def is_resumed(connection: SSL.Connection) -> bool:
    """Whether its session is one of before."""
    found: Any = connection
    return bool(_lib.SSL_session_reused(found._ssl))


def verify_result(connection: SSL.Connection) -> int:
    """What is wrong with the client's certificate (X509_V_ERR_...); 0 for nothing or none."""
    found: Any = connection
    result: int = _lib.SSL_get_verify_result(found._ssl)
    return result


def verify_error(number: int) -> str:
    """OpenSSL's words for a `verify_result`."""
    return str(_ffi.string(_lib.X509_verify_cert_error_string(number)).decode("ascii", "replace"))


def session(connection: SSL.Connection) -> bytes:
    """The session as ``i2d_SSL_SESSION`` writes it; empty if there is none."""
    found: Any = connection
    handle = _lib.SSL_get_session(found._ssl)
    if handle == _ffi.NULL:
        return b""
    size = _lib.i2d_SSL_SESSION(handle, _ffi.NULL)
    if size <= 0:
        forget_errors()
        return b""
    space = _ffi.new("unsigned char[]", size)
    _lib.i2d_SSL_SESSION(handle, _ffi.new("unsigned char **", space))
    return bytes(_ffi.buffer(space))


def group(connection: SSL.Connection) -> str:
    """The name of the group that keys were exchanged in; empty if none was."""
    found: Any = connection
    name = _lib.SSL_get0_group_name(found._ssl)
    return "" if name == _ffi.NULL else str(_ffi.string(name).decode())


def cipher_name(connection: SSL.Connection, code: bytes) -> str | None:
    """OpenSSL's name for the two bytes of a cipher suite."""
    found: Any = connection
    cipher = _lib.SSL_CIPHER_find(found._ssl, code)
    if cipher == _ffi.NULL:
        return None
    return str(_ffi.string(_lib.SSL_CIPHER_get_name(cipher)).decode())


def names_of(certificate: Any) -> tuple[bytes, bytes]:
    """Subject and issuer of a `crypto.X509` as RFC 2253 writes them."""
    return _printed(certificate, _ONLY_SUBJECT), _printed(certificate, _ONLY_ISSUER)


def _printed(certificate: Any, what: int) -> bytes:
    bio = _ffi.gc(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free)
    _lib.X509_print_ex(bio, certificate._x509, _RFC2253, what)
    text = _ffi.new("char **")
    size = _lib.BIO_get_mem_data(bio, text)
    line: bytes = _ffi.buffer(text[0], size)[:]
    return line.partition(b":")[2].strip()


def old_names_of(certificate: Any) -> tuple[bytes, bytes]:
    """The same in OpenSSL's old form: ``/C=DE/CN=name``."""
    found = []
    for name in (
        _lib.X509_get_subject_name(certificate._x509),
        _lib.X509_get_issuer_name(certificate._x509),
    ):
        line = _ffi.gc(_lib.X509_NAME_oneline(name, _ffi.NULL, 0), _lib.OPENSSL_free)
        found.append(bytes(_ffi.string(line)))
    return found[0], found[1]


@contextmanager
def as_file(content: bytes) -> Iterator[bytes]:
    """The path of a file in memory, for what OpenSSL only reads from files."""
    descriptor = os.memfd_create("imagefarm-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)
