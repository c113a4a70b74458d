"""The requests of the differential test: what the farm's clients send, and what they should not.

A case is a side of the farm, the bytes sent, and how often (a second time shows the cache).
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.rawhttp import request

MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Mon, 13 Nov 2023 22:13:20 GMT"
LATER = "Wed, 15 Nov 2023 22:13:20 GMT"
TAG = '"6553f100-2800"'


@dataclass(frozen=True)
class Case:
    """One request. ``side``: master, tls or slave."""

    name: str
    side: str
    data: bytes
    times: int = 1


def _get(side: str, target: str, *fields: str, name: str = "", **options: object) -> Case:
    method = options.get("method", "GET")
    label = name or f"{method} {target} {' '.join(fields)}".strip()
    return Case(f"{side}: {label}", side, request(target, *fields, **options))  # type: ignore[arg-type]


PLAIN = (
    "/a.jpg", "/b.png", "/c.gif", "/d.bmp", "/e.webp", "/big.jpg", "/upper.JPG", "/zero.jpg",
    "/one.jpg", "/page.html", "/small.html", "/exact1k.html", "/style.css", "/app.js",
    "/movie.swf", "/data.txt", "/doc.xml", "/feed.rss", "/noext", "/.hidden", "/html",
    "/name%20with%20space.jpg", "/%ED%95%9C%EA%B8%80.jpg", "/plus+plus.jpg", "/plus%2Bplus.jpg",
    "/per%25cent.jpg", "/semi;colon.jpg", "/dir/", "/dir/index.html", "/dir/inner.jpg",
    "/deep/a/b/c.txt", "/deep/a/b/c.jpg", "/a.jpg?v=1", "/a.jpg?", "/a.jpg?a=1&b=%20c",
    "/thumbnail/ch1.jpg", "/thumbnail/sub/ch2.jpg", "/upload/fe/profile/me.gif",
    "/upload/fe/profile/missing.gif", "/favicon.ico",
)  # fmt: skip

ODD = (
    "/", "/dir", "/dir?x=1", "/emptydir/", "/emptydir", "/missing.jpg", "/missing", "/missing/",
    "/missing.html", "/a.jpg/", "/a.jpg/x", "/deep/a/../a/b/c.txt", "/deep/./a/b/c.txt",
    "//a.jpg", "/deep//a///b/c.txt", "/../a.jpg", "/..", "/deep/../../etc/passwd",
    "/%2e%2e/a.jpg", "/deep/%2e%2e/a.jpg", "/deep%2Fa/b/c.txt", "/%61.jpg", "/a%2ejpg",
    "/a.jpg%00", "/a%00.jpg", "/%", "/%zz", "/a.jpg%", "/a.jpg#frag", "/a.jpg%23frag",
    "/a.jpg%3Fx", "/thumbnail/", "/thumbnail", "/thumbnail/missing.jpg", "/thumbnail/../a.jpg",
    "/50x.html", "/40x.html", "/A.JPG", "/ a.jpg", "/a\\b", "/~user", "/a.jpg;x=1",
    "/theme/micro/common/img/player/profile_thmb_default.gif", "/favicon.ico?x",
)  # fmt: skip

PHP = (
    "/index.php", "/params.php?a=1&b=%20", "/html.php", "/empty.php", "/big.php", "/stderr.php",
    "/missing.php", "/sub/index.php", "/status.php?c=404", "/status.php?c=500",
    "/status.php?c=403", "/status.php?c=201",
)  # fmt: skip

RANGES = (
    "bytes=0-0", "bytes=0-99", "bytes=100-199", "bytes=-1", "bytes=-100", "bytes=10000-",
    "bytes=0-", "bytes=10239-10239", "bytes=10240-", "bytes=99999-", "bytes=5-4", "bytes=-0",
    "bytes=0-99999", "bytes=-99999", "bytes=0-0,2-2", "bytes=0-99,200-299,-5", "bytes=0-,0-",
    "bytes=abc", "bytes=", "bytes=-", "bits=0-1", "bytes = 0-1", "bytes=0-1 ", "bytes= 0-1",
    "bytes=0-1,", "bytes=1-0,3-4", "bytes=20000-30000,0-1", "0-1", "bytes=0-1-2",
    "bytes=99999999999999999999-",
)  # fmt: skip

CONDITIONS: tuple[tuple[str, ...], ...] = (
    (f"If-Modified-Since: {MODIFIED}",),
    (f"If-Modified-Since: {EARLIER}",),
    (f"If-Modified-Since: {LATER}",),
    ("If-Modified-Since: nonsense",),
    ("If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT",),
    (f"If-None-Match: {TAG}",),
    (f"If-None-Match: W/{TAG}",),
    ('If-None-Match: "other"',),
    (f'If-None-Match: "other", {TAG}',),
    ("If-None-Match: *",),
    ('If-None-Match: "other"', f"If-Modified-Since: {MODIFIED}"),
    (f"If-None-Match: {TAG}", f"If-Modified-Since: {EARLIER}"),
    (f"If-Match: {TAG}",),
    ('If-Match: "other"',),
    ("If-Match: *",),
    (f"If-Match: W/{TAG}",),
    (f"If-Unmodified-Since: {MODIFIED}",),
    (f"If-Unmodified-Since: {EARLIER}",),
    (f"If-Range: {TAG}", "Range: bytes=0-9"),
    ('If-Range: "other"', "Range: bytes=0-9"),
    (f"If-Range: {MODIFIED}", "Range: bytes=0-9"),
    (f"If-Range: {EARLIER}", "Range: bytes=0-9"),
    (f"If-None-Match: {TAG}", "Range: bytes=0-9"),
)

ENCODINGS = (
    "gzip", "gzip, deflate, br", "deflate", "identity", "*", "gzip;q=0", "gzip;q=0.5", "x-gzip",
    "GZIP", "gzip;q=0.000", "identity, gzip;q=1.0", "gzipx", "br",
)  # fmt: skip

AGENTS = (
    "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)",
    "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)",
    "Mozilla/4.0 (compatible; MSIE 8.0)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
)


def _static() -> list[Case]:
    cases = [_get(side, t) for side in ("master", "slave") for t in PLAIN + ODD]
    tls = (
        *PLAIN[:6],
        "/page.html",
        *PLAIN[-5:],
        "/",
        "/dir",
        "/missing.jpg",
        "/thumbnail/missing.jpg",
    )
    cases += [_get("tls", t) for t in tls]
    cases += [
        _get(side, t, method="HEAD")
        for side in ("master", "slave")
        for t in (
            "/a.jpg",
            "/missing.jpg",
            "/dir",
            "/page.html",
            "/thumbnail/ch1.jpg",
            "/favicon.ico",
        )
    ]
    return cases


def _headers() -> list[Case]:
    cases = [_get("slave", "/a.jpg", f"Range: {value}") for value in RANGES]
    cases += [_get("master", "/thumbnail/ch1.jpg", f"Range: {value}") for value in RANGES[:16]]
    cases += [_get("master", "/a.jpg", f"Range: {value}") for value in RANGES[:16]]
    cases += [
        _get("slave", "/zero.jpg", f"Range: {v}") for v in ("bytes=0-0", "bytes=-1", "bytes=0-")
    ]
    cases += [_get("slave", "/page.html", "Range: bytes=0-9", "Accept-Encoding: gzip")]
    for side in ("slave", "master"):
        cases += [_get(side, "/a.jpg", *fields) for fields in CONDITIONS]
        cases += [
            _get(side, target, f"Accept-Encoding: {coding}")
            for coding in ENCODINGS
            for target in ("/page.html", "/style.css")
        ]
    for target in ("/small.html", "/exact1k.html", "/app.js", "/doc.xml", "/data.txt", "/feed.rss",
                   "/a.jpg", "/missing.jpg", "/thumbnail/missing.jpg"):  # fmt: skip
        cases.append(_get("master", target, "Accept-Encoding: gzip"))
        cases.append(_get("slave", target, "Accept-Encoding: gzip"))
    cases += [
        _get(
            side,
            target,
            "Accept-Encoding: gzip",
            f"User-Agent: {agent}",
            name=f"{target} {agent[:40]}",
        )
        for side in ("slave", "master")
        for agent in AGENTS
        for target in ("/page.html", "/missing.jpg", "/thumbnail/missing.jpg")
    ]
    cases += [
        _get("slave", "/style.css", "Accept-Encoding: gzip", "Via: 1.1 proxy"),
        _get("slave", "/style.css", "Accept-Encoding: gzip", version="1.0"),
    ]
    return cases


def _methods() -> list[Case]:
    cases = []
    for side in ("slave", "master"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "FOO"):
            cases.append(
                _get(side, "/a.jpg", method=method, body=b"x=1" if method == "POST" else b"")
            )
        cases += [
            _get(side, "/missing.jpg", method="POST", body=b"abc"),
            _get(side, "/dir/", method="POST", body=b"abc"),
            _get(side, "/a.jpg", version="1.0", host=None),
            _get(side, "/a.jpg", "Connection: keep-alive", version="1.0"),
            _get(side, "/a.jpg", "Connection: close"),
            _get(side, "/a.jpg", host="unknown.example"),
            _get(side, "/dir", host="Some.Host.Example"),
            _get(side, "/dir", host="some.host:1234"),
            _get(side, "http://localhost/a.jpg"),
            _get(side, "/a.jpg", "Content-Length: 0"),
            _get(side, "/a.jpg", "X-Weird: \xe9\xe8"),
            _get(
                side, "/a.jpg", "Content-Length: 200000000", name="declares 200 MB", method="POST"
            ),
        ]
    return cases


def _fastcgi() -> list[Case]:
    cases = [_get("master", target) for target in PHP]
    twice = (
        "/count.php?k=a", "/count.php?k=b", "/status.php?c=302", "/status.php?c=404&again",
        "/header.php?h[]=Cache-Control:+no-cache", "/header.php?h[]=Cache-Control:+max-age=60",
        "/header.php?h[]=Cache-Control:+private", "/header.php?h[]=Set-Cookie:+a=b",
        "/header.php?h[]=Expires:+Thu,+01+Jan+1970+00:00:00+GMT", "/header.php?h[]=Vary:+X-Foo",
        "/header.php?h[]=Vary:+*", "/header.php?h[]=X-Accel-Expires:+0",
        "/header.php?h[]=ETag:+%22e%22",
        "/header.php?h[]=Last-Modified:+Tue,+14+Nov+2023+22:13:20+GMT",
        "/header.php?h[]=Location:+/there.jpg", "/header.php?h[]=X-Powered-By:+test",
    )  # fmt: skip
    cases += [Case(f"master: twice {t}", "master", request(t), 2) for t in twice]
    cases += [
        Case("master: HEAD then GET", "master", request("/big.php?head", method="HEAD")),
        Case("master: cached range", "master", request("/big.php?r", "Range: bytes=0-9"), 2),
        Case(
            "master: cached etag", "master",
            request('/header.php?h[]=ETag:+%22e%22&c', 'If-None-Match: "e"'), 2,
        ),
        Case("master: cookie in key", "master", request("/count.php?k=a", "Cookie: user=joe"), 2),
        Case("master: other cookie", "master", request("/count.php?k=a", "Cookie: other=joe"), 2),
        Case("master: key has the host", "master", request("/count.php?k=a", host="other"), 2),
        _get("master", "/params.php?x", "X-Foo: bar", "Cookie: a=b", "Proxy: evil"),
        _get("master", "/body.php", method="POST", body=b"a" * 100_000, name="POST body"),
        _get("master", "/html.php?gz", "Accept-Encoding: gzip"),
        _get("master", "/index.php/path/info"),
        _get("master", "/sub/"),
        _get("tls", "/index.php"),
        Case("tls: key has the scheme", "tls", request("/count.php?k=a"), 2),
    ]  # fmt: skip
    chunked = request("/body.php?chunked", "Transfer-Encoding: chunked", method="POST")
    cases.append(Case("master: chunked POST", "master", chunked + b"3\r\nabc\r\n0\r\n\r\n"))
    return cases


def cases() -> list[Case]:
    """All of them, in the order in which they are sent."""
    return _static() + _headers() + _methods() + _fastcgi()
