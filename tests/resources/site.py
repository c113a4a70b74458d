"""A resource tree out of a few lines of configuration, and requests to it without a network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from twisted.internet.defer import Deferred

from imagefarm.app.configuration import directive_table, variables
from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import Scope
from imagefarm.http.accesslog import AccessLogs
from imagefarm.http.body import EMPTY
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    BodyStream,
    FileBody,
    Peer,
    Request,
    RequestHead,
    Response,
    discard,
)
from imagefarm.resources import directives as rows
from imagefarm.resources.build import Builder, Tree
from imagefarm.resources.dispatch import Dispatcher
from imagefarm.resources.location import Content

ADDRESS = ("127.0.0.1", 8080)


class Site:
    """Servers of ``http``'s text; ``contents`` gives handlers by the location's name.

    ``PREFIX`` in the text is a temporary directory, with ``files`` in ``www/`` as the root.
    """

    def __init__(
        self,
        cleanup: Callable[..., object],
        text: str,
        *,
        contents: dict[str, Content] | None = None,
        files: Iterable[str] = (),
        whole: bool = False,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="resources-"))
        cleanup(shutil.rmtree, self.directory, True)
        self.root = self.directory / "www"
        self.root.mkdir()
        for name in files:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}")
        if not whole:
            text = f"server {{ listen {ADDRESS[0]}:{ADDRESS[1]}; server_name site;\n{text}\n}}"
        text = f"http {{ root PREFIX/www;\n{text}\n}}".replace("PREFIX", str(self.directory))
        loaded = convert(
            parse_text(text, "site.conf"),
            table=directive_table(),
            variables=variables(),
            prefix=str(self.directory),
            conf_dir=str(self.directory),
        )
        self.warnings = loaded.warnings
        self._contents = contents or {}
        builder = Builder((self._content,), lambda scope: AccessLogs(), b"html")
        self.tree: Tree = builder.build(loaded.root.blocks(rows.HTTP_BLOCK))
        for cache in self.tree.file_caches:
            cleanup(cache.close)
        self.dispatcher = Dispatcher(self.tree.farm)

    def _content(self, scope: Scope) -> Content | None:
        name = " ".join(scope.directive.args) if scope.directive else ""
        return self._contents.get(name)

    def request(
        self,
        target: str | bytes,
        *fields: tuple[bytes, bytes],
        method: bytes = b"GET",
        host: bytes = b"site",
        client: str = "192.0.2.1",
        server: tuple[str, int] = ADDRESS,
        tls: bool = False,
        body: BodyStream = EMPTY,
        version: tuple[int, int] = (1, 1),
    ) -> Request:
        """A request as the connection would hand it over."""
        data = target if isinstance(target, bytes) else target.encode()
        head = RequestHead(method, data, version, Headers([(b"Host", host), *fields]))
        peer = Peer(client, 1234, server, 1, ("TLSv1.3", "X") if tls else None)
        return Request(head, peer, body, 0.0, host)

    def result(self, request: Request) -> Response | Deferred[Response]:
        return self.dispatcher.respond(request)

    def ask(self, target: str | bytes, *fields: tuple[bytes, bytes], **more: object) -> Shown:
        """What is answered, at once."""
        request = self.request(target, *fields, **more)  # type: ignore[arg-type]
        response = self.result(request)
        if isinstance(response, Deferred):
            response = response.result
        assert isinstance(response, Response), response
        return Shown(request, response)


class Shown:
    """An answer, read; its body is released."""

    def __init__(self, request: Request, response: Response) -> None:
        self.request = request
        self.response = response
        self.status = response.status
        self.close = response.close
        body = response.body
        if isinstance(body, FileBody):
            with open(body.file.fd, "rb", closefd=False) as file:
                file.seek(body.offset)
                self.body = file.read(body.length)
        else:
            self.body = body if isinstance(body, bytes) else b""
        discard(body)

    def header(self, name: str) -> str | None:
        value = self.response.headers.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")
