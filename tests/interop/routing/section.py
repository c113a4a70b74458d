"""A section of the table, and the files that all of them serve."""

from __future__ import annotations

from attrs import frozen

from tests.support.rawhttp import request


@frozen
class Section:
    """``configuration`` goes into ``server { server_name NAME; ... }``.

    ``requests`` are targets, or bytes sent as they are (with "NAME" for the host).
    """

    name: str
    configuration: str
    requests: tuple[str | bytes, ...]

    def asked(self) -> list[tuple[str, bytes]]:
        """A name and the bytes of each request."""
        found = []
        for item in self.requests:
            if isinstance(item, bytes):
                data = item.replace(b"NAME", self.name.encode())
                found.append((f"{self.name} {item.split(b' HTTP')[0].decode()}", data))
            else:
                data = request(item, "Connection: close", host=self.name)
                found.append((f"{self.name} {item}", data))
        return found


def ask(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    return request(target, *fields, "Connection: close", method=method, host="NAME", body=body)


#: Files under the root, and what is in them.
FILES: dict[str, str] = {
    "a.txt": "a",
    "b c.txt": "b c",
    "index.html": "<html>top</html>",
    "dir/index.html": "<html>dir</html>",
    "dir/file.txt": "file",
    "dir/other.html": "<html>other</html>",
    "with space/index.html": "<html>space</html>",
    "nested/deep/x.txt": "x",
    "indexed/index.html/inner.txt": "index.html is a directory",
    "second/b.html": "<html>b</html>",
    "empty.txt": "",
    "404.html": "<html>forty-four</html>",
    "50x.html": "<html>fifty</html>",
    "page.html": "<html>page</html>",
    "fallback.txt": "fallback",
    "zipped.txt": "zipped, plain" * 100,
    "zipped.txt.gz": "this pretends to be zipped",
    "only.txt.gz": "only zipped",
    "other/a.txt": "other a",
    "other/sub/index.html": "<html>other sub</html>",
    "other/sub/c.txt": "other c",
    "long.txt": "0123456789" * 20,
}  # fmt: skip
