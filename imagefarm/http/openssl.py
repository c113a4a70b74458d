"""What TLS calls for each request, without pyOpenSSL's Python between OpenSSL and us.

pyOpenSSL makes and configures connections, and closes them. A `Channel` shakes hands, reads and
writes: `PrivateChannel` through parts of pyOpenSSL that are private, `PublicChannel` through the
others. Whether the private ones are as this module knows them is looked at once, when it is
imported; with a pyOpenSSL where they are not, `open_channel` makes the public one, which is slower
and does the same.

As in pyOpenSSL, OpenSSL's queue of errors is emptied by whoever raises one, so that it is empty
before each call, as SSL_get_error(3) wants it.
"""

from __future__ import annotations

import ssl
from types import ModuleType
from typing import Any, Final, Protocol

from OpenSSL import SSL

#: The most plaintext of one record (RFC 8446 section 5.1). OpenSSL takes no more off the socket
#: than one record, so a read of this size leaves nothing behind that epoll would not tell of.
RECORD: Final = 16384

#: What is called, and as what.
_CALLED: Final = {
    "SSL_do_handshake": "int(*)(SSL *)",
    "SSL_read": "int(*)(SSL *, void *, int)",
    "SSL_write": "int(*)(SSL *, void *, int)",
    "SSL_get_error": "int(*)(SSL *, int)",
}


class Channel(Protocol):
    """One connection's reads and writes, on its non-blocking socket.

    All raise an `SSL.Error`, where they can't go on: `SSL.WantReadError` and `SSL.WantWriteError`
    until the socket has or takes something, another one for good.
    """

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is done. If not, something has to be read."""

    def recv(self) -> bytes:
        """What the next record has; ``b""`` is the end that the client has announced."""

    def send(self, data: bytes | memoryview) -> int:
        """Send one record of ``data``, which is not empty; how much of it that was."""


class PublicChannel:
    """The channel of any pyOpenSSL."""

    __slots__ = ("_connection", "send")

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.send = connection.send

    def handshake(self) -> bool:
        """See `Channel`."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def recv(self) -> bytes:
        """See `Channel`."""
        try:
            return self._connection.recv(RECORD)
        except SSL.ZeroReturnError:
            return b""


class PrivateChannel:
    """The channel of a pyOpenSSL that `is_known`."""

    __slots__ = ("_connection", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        #: Also keeps ``_ssl`` from being freed.
        self._connection: Any = connection
        self._ssl = self._connection._ssl

    def handshake(self) -> bool:
        """See `Channel`."""
        handle = self._ssl
        result = _do_handshake(handle)
        if result > 0:
            return True
        if _get_error(handle, result) != _WANT_READ:
            self._connection._raise_ssl_error(handle, result)
        return False

    def recv(self) -> bytes:
        """See `Channel`."""
        handle = self._ssl
        result = _read(handle, _space, RECORD)
        if result > 0:
            data: bytes = _contents[:result]
            return data
        if _get_error(handle, result) != _ZERO_RETURN:
            self._connection._raise_ssl_error(handle, result)
        return b""

    def send(self, data: bytes | memoryview) -> int:
        """See `Channel`."""
        handle = self._ssl
        start = data if type(data) is bytes else _from_buffer(data)
        result: int = _write(handle, start, len(data))
        if result <= 0:
            self._connection._raise_ssl_error(handle, result)
        return result


def is_known(module: ModuleType) -> bool:
    """Whether pyOpenSSL's ``SSL`` is as `PrivateChannel` needs it."""
    names: Any = module
    try:
        ffi, lib = names._ffi, names._lib
        connection = names.Connection(names.Context(names.TLS_SERVER_METHOD), None)
        return (
            all(ffi.typeof(getattr(lib, name)) is ffi.typeof(of) for name, of in _CALLED.items())
            and ffi.typeof(connection._ssl) is ffi.typeof("SSL *")
            and callable(connection._raise_ssl_error)
        )
    except Exception:  # whatever it is that has changed
        return False


open_channel: type[PublicChannel | PrivateChannel] = PublicChannel

if is_known(SSL):
    _private: Any = SSL
    _do_handshake: Final = _private._lib.SSL_do_handshake
    _read: Final = _private._lib.SSL_read
    _write: Final = _private._lib.SSL_write
    _get_error: Final = _private._lib.SSL_get_error
    _from_buffer: Final = _private._ffi.from_buffer
    #: One place for all that is read, from which it is copied at once.
    _space: Final = _private._ffi.new("char[]", RECORD)
    _contents: Final = _private._ffi.buffer(_space)
    _WANT_READ: Final = ssl.SSL_ERROR_WANT_READ.value
    _ZERO_RETURN: Final = ssl.SSL_ERROR_ZERO_RETURN.value
    open_channel = PrivateChannel
