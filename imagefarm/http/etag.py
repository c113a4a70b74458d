"""Entity tags (RFC 9110 section 8.8.3) as nginx makes and compares them."""

from __future__ import annotations

from .headers import Headers


def etag(mtime: float, size: int) -> bytes:
    """nginx's strong tag of a file: modification time in seconds and size, in hexadecimal."""
    return b'"%x-%x"' % (int(mtime), size)


def weaken(headers: Headers) -> None:
    """Make the ETag weak, because the content is about to be coded; drop one that is no tag."""
    tag = headers.first(b"etag")
    if tag is None or tag.startswith(b"W/"):
        return
    if tag.startswith(b'"'):
        headers.set(b"ETag", b"W/" + tag)
    else:
        headers.remove(b"etag")


def listed(tags: bytes, tag: bytes | None, *, weak: bool) -> bool:
    """Whether an ``If-Match`` or ``If-None-Match`` value names ``tag``.

    ``*`` names everything. ``weak``: compare by RFC 9110's weak comparison. As in nginx, a
    strong comparison is one of bytes.
    """
    if tags == b"*":
        return True
    if tag is None:
        return False
    if weak:
        tag = tag.removeprefix(b"W/")
    # A tag may hold a comma, so look for ours at each place where an element can begin.
    rest = tags
    while rest:
        candidate = rest.removeprefix(b"W/") if weak else rest
        if candidate.startswith(tag):
            after = candidate[len(tag) :].lstrip(b" \t")
            if not after or after.startswith(b","):
                return True
        rest = rest.partition(b",")[2].lstrip(b" \t,")
    return False
