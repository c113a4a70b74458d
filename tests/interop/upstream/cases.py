"""Locations that proxy, requests to them, and what the upstream answers: asked of both sides."""

from __future__ import annotations

from typing import Final

from attrs import frozen

PLAIN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@frozen
class Case:
    """``conf`` has locations; UP is the upstream's address, SOCKET its path.

    ``targets`` are asked with ``fields`` (whole lines), ``method`` and ``body``; ``answer`` is
    the upstream's, and may contain UP.
    """

    name: str
    conf: str
    targets: tuple[str, ...]
    fields: tuple[str, ...] = ()
    answer: bytes = PLAIN
    method: str = "GET"
    body: bytes = b""


def answer(*lines: str, status: str = "200 OK", body: bytes = b"ok") -> bytes:
    """An upstream's answer with these field lines."""
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines))
    return head.encode() + b"\r\n\r\n" + body


#: Paths in every guise, below a location.
PATHS: Final = (
    "", "x", "a/b?c=d", "a%20b", "a%2Fb", "a//b", "./a/../b", "%7Ea", "a%25b", "a%3Fb", "x?",
    "a+b",
    "%E4%B8", "a|b", "x?q=%20&r=a b".replace(" b", "%62"), "a;b", "..%2fz", "a'b(c)", "%00x",
)  # fmt: skip


def paths(prefix: str) -> tuple[str, ...]:
    return tuple(prefix + path for path in PATHS)


def _pass(name: str, words: str, inside: str, prefix: str, server: str = "") -> Case:
    return Case(name, f"{server} location {words} {{ {inside} }}", paths(prefix))


PASSES: Final = (
    _pass("no uri", "/p1/", "proxy_pass http://UP;", "/p1/"),
    _pass("slash", "/p2/", "proxy_pass http://UP/;", "/p2/"),
    _pass("path", "/p3/", "proxy_pass http://UP/new/;", "/p3/"),
    _pass("path without slash", "/p4/", "proxy_pass http://UP/new;", "/p4/"),
    _pass("location without slash", "/p5", "proxy_pass http://UP/new/;", "/p5"),
    _pass("location without slash 2", "/p6", "proxy_pass http://UP/new/;", "/p6/"),
    _pass("query in uri", "/p7/", "proxy_pass http://UP/new?a=b;", "/p7/"),
    _pass("regex", "~ ^/p8/", "proxy_pass http://UP;", "/p8/"),
    _pass("regex and capture", "~ ^/p9/(.*)$", "proxy_pass http://UP/new/$1;", "/p9/"),
    _pass("capture and args", "~ ^/p10/(.*)$", "proxy_pass http://UP/new/$1$is_args$args;",
          "/p10/"),
    _pass("variable without uri", "/p11/", "set $up UP; proxy_pass http://$up;", "/p11/"),
    _pass("variable with uri", "/p12/", "set $up UP; proxy_pass http://$up/n;", "/p12/"),
    _pass("request_uri", "/p13/", "proxy_pass http://UP$request_uri;", "/p13/"),
    _pass("uri", "/p14/", "proxy_pass http://UP$uri;", "/p14/"),
    _pass("after break", "/p15/", "rewrite ^/p15/(.*) /r/$1 break; proxy_pass http://UP;",
          "/p15/"),
    _pass("after break, with uri", "/p16/",
          "rewrite ^/p16/(.*) /r/$1 break; proxy_pass http://UP/new/;", "/p16/"),
    _pass("after break, with args", "/p17/",
          "rewrite ^/p17/(.*) /r?x=$1 break; proxy_pass http://UP;", "/p17/"),
    _pass("named location", "/p18/", "try_files /none @p18;", "/p18/",
          "location @p18 { proxy_pass http://UP; }"),
    _pass("named upstream", "/p19/", "proxy_pass http://backend/b/;", "/p19/"),
    _pass("named upstream in a variable", "/p20/",
          "set $b backend; proxy_pass http://$b;", "/p20/"),
    _pass("unix", "/p21/", "proxy_pass http://unix:SOCKET;", "/p21/"),
    _pass("unix with uri", "/p22/", "proxy_pass http://unix:SOCKET:/new/;", "/p22/"),
    _pass("exact", "= /p23/x", "proxy_pass http://UP/y;", "/p23/"),
    _pass("if", "/p24/", "proxy_pass http://UP; if ($arg_c) { proxy_pass http://UP; }", "/p24/"),
    _pass("limited", "^~ /p25/", "proxy_pass http://UP/z/;", "/p25/"),
    _pass("last into it", "/p26/", "rewrite ^/p26/(.*) /p2/$1 last;", "/p26/"),
    _pass("error page into it", "/p27/", "error_page 404 = /p2/err?x=y; return 404;", "/p27/"),
    _pass("relative", "/p28/", "proxy_pass http://UP/../up/;", "/p28/"),
)  # fmt: skip

ASKED: Final = (
    "X-Custom: one", "X-Custom: two", "Accept: a/b", "Cookie: a=1", "Cookie: b=2",
    "Keep-Alive: 5", "TE: trailers",
    "X-Empty:", "User-Agent: me", "Referer: http://a/", "Range: bytes=0-1",
    "X-Forwarded-For: 1.2.3.4",
    "If-None-Match: \"e\"", "Authorization: Basic eA==",
)  # fmt: skip


def _set(name: str, inside: str, **more: object) -> Case:
    number = name.replace(" ", "-")
    conf = f"location /s/{number}/ {{ proxy_pass http://UP; {inside} }}"
    return Case(name, conf, (f"/s/{number}/",), **{"fields": ASKED, **more})  # type: ignore[arg-type]


FIELDS: Final = (
    _set("as they come", ""),
    _set("version 1.0", "proxy_http_version 1.0;"),
    _set("proxy connection", "", fields=("Proxy-Connection: keep-alive",)),
    _set("host", "proxy_set_header Host $host;"),
    _set("http_host", "proxy_set_header Host $http_host;"),
    _set("proxy_host and port", "proxy_set_header X-Up $proxy_host; "
         "proxy_set_header X-Known $proxy_add_x_forwarded_for;"),
    _set("empty removes", 'proxy_set_header Accept ""; proxy_set_header X-None "$arg_none";'),
    _set("replaces all of a name", "proxy_set_header x-custom three;"),
    _set("twice", "proxy_set_header X-Twice 1; proxy_set_header X-Twice 2;"),
    _set("long list", "proxy_set_header X-A $remote_addr; proxy_set_header X-B $scheme; "
         "proxy_set_header X-C $http_accept; proxy_set_header X-D $cookie_a;"),
    _set("no headers", "proxy_pass_request_headers off; proxy_set_header X-A 1;"),
    _set("method", "proxy_method PUT;"),
    _set("method of a variable", "proxy_method $arg_m;", fields=()),
    _set("head", "", method="HEAD", answer=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    _set("body", "", method="POST", body=b"hello"),
    _set("empty body", "", method="POST", fields=("Content-Length: 0",)),
    _set("set body", "proxy_set_body $request_method-$arg_x;", method="POST", body=b"hello"),
    _set("set body of a get", "proxy_set_body fixed;"),
    _set("set body and method", "proxy_set_body fixed; proxy_method POST;"),
    _set("set body of the body", 'proxy_set_body "<$request_body>";', method="POST",
         body=b"hello"),
    _set("set body of a large body", 'proxy_set_body "<$request_body>";', method="PUT",
         body=b"hello" * 50_000),
    _set("set body of the body, streaming", 'proxy_set_body "<$request_body>"; '
         "proxy_request_buffering off;", method="POST", body=b"hello"),
    _set("no body", 'proxy_pass_request_body off; proxy_set_header Content-Length "";',
         method="POST", body=b"hello"),
    _set("options", "", method="OPTIONS"),
    _set("delete with body", "", method="DELETE", body=b"x"),
    Case("inherited fields", "location /in/ { proxy_set_header X-Out 1; "
         "location /in/a/ { proxy_pass http://UP; } "
         "location /in/b/ { proxy_pass http://UP; proxy_set_header X-In 2; } }",
         ("/in/a/", "/in/b/")),
)  # fmt: skip

MANY: Final = answer(
    "Date: Sun, 06 Nov 1994 08:49:37 GMT", "Server: other", "X-Pad: x", "X-Accel-Expires: 0",
    "X-Accel-Buffering: yes", "X-Accel-Charset: koi8-r", "X-Accel-Limit-Rate: 0",
    "X-Powered-By: p",
    "Content-Type: text/plain", "ETag: \"e\"", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
    "Set-Cookie: a=1", "Set-Cookie: b=2", "Cache-Control: no-store", "Cache-Control: private",
    "Expires: Sun, 06 Nov 1994 08:49:37 GMT", "Vary: Accept", "Link: </a>", "X-Two: 1", "X-Two: 2",
    "Accept-Ranges: bytes", "Content-Disposition: inline", "WWW-Authenticate: Basic", "Age: 3",
    "Keep-Alive: timeout=5", "Content-Language: de", "X-Empty:",
)  # fmt: skip


def _answered(name: str, inside: str, reply: bytes = MANY, **more: object) -> Case:
    number = name.replace(" ", "-")
    conf = f"location /a/{number}/ {{ proxy_pass http://UP; {inside} }}"
    return Case(name, conf, (f"/a/{number}/",), answer=reply, **more)  # type: ignore[arg-type]


DATED: Final = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"
ANSWERS: Final = (
    _answered("fields", ""),
    _answered("hidden", "proxy_hide_header x-powered-by; proxy_hide_header ETag;"),
    _answered("passed", "proxy_pass_header Server; proxy_pass_header X-Pad; "
              "proxy_pass_header X-Accel-Expires; proxy_pass_header Date;"),
    _answered("hidden and passed", "proxy_hide_header Link; proxy_pass_header Link;"),
    _answered("charset", "charset windows-1251;"),
    _answered("charset ignored", "proxy_ignore_headers X-Accel-Charset;"),
    _answered("head of it", "", method="HEAD"),
    _answered("expires", "expires 1h; add_header X-Added $upstream_http_x_powered_by;"),
    _answered("ranges forced", "proxy_force_ranges on;", fields=("Range: bytes=1-",)),
    _answered("ranges forced, two", "proxy_force_ranges on;", fields=("Range: bytes=0-0,1-1",)),
    _answered("ranges not forced", "", fields=("Range: bytes=1-",)),
    _answered("conditions are the upstream's", "", fields=("If-None-Match: \"e\"",)),
    _answered("304", "", b"HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n"),
    _answered("204", "", b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"),
    _answered("304 with a length", "", answer(status="304 Not Modified", body=b"")),
    _answered("206", "", answer("Content-Range: bytes 0-1/9", status="206 Partial Content")),
    _answered("404", "", answer("Content-Type: text/x", status="404 Not Found", body=b"theirs")),
    _answered("odd status", "", answer(status="299 Odd")),
    _answered("big status", "", answer(status="599 Odd")),
    _answered("404 intercepted", "proxy_intercept_errors on; error_page 404 = /page;",
              answer("X-Theirs: 1", status="404 Not Found", body=b"theirs")),
    _answered("intercepted, no page", "proxy_intercept_errors on; error_page 500 = /page;",
              answer("X-Theirs: 1", status="404 Not Found", body=b"theirs")),
    _answered("intercepted to a name", "proxy_intercept_errors on; error_page 503 @page;",
              answer("Retry-After: 5", status="503 No", body=b"theirs")),
    _answered("intercepted, no page for a 500",
              "proxy_intercept_errors on; error_page 404 = /page;",
              answer("X-Theirs: 1", status="500 No", body=b"theirs")),
    Case("intercepted in an error page",
         "location /a/inner/ { error_page 403 = @inner; return 403; } "
         "location @inner { proxy_pass http://UP; proxy_intercept_errors on; "
         "error_page 404 =200 /page; }", ("/a/inner/",),
         answer=answer("X-Theirs: 1", status="404 Not Found", body=b"theirs")),
    Case("intercepted in an error page, no page for it",
         "location /a/inner2/ { error_page 403 = @inner2; return 403; } "
         "location @inner2 { proxy_pass http://UP; proxy_intercept_errors on; "
         "error_page 404 =200 /page; }", ("/a/inner2/",),
         answer=answer("X-Theirs: 1", status="500 No", body=b"theirs")),
    _answered("intercepted redirect", "proxy_intercept_errors on; error_page 302 = /page;",
              answer("Location: /x", status="302 Found", body=b"")),
    _answered("401 intercepted", "proxy_intercept_errors on; error_page 401 /page;",
              answer("WWW-Authenticate: Basic", status="401 No", body=b"theirs")),
    _answered("redirect as it came, intercepted",
              "proxy_intercept_errors on; proxy_redirect off;",
              answer("Location: /x", DATED, status="302 Found")),
    _answered("dated error", "", answer(DATED, status="410 Gone")),
    _answered("empty error, intercepted", "proxy_intercept_errors on;",
              answer("Content-Type: text/x", status="404 No", body=b"")),
    _answered("204 with a type", "", b"HTTP/1.1 204 No\r\nContent-Type: text/x\r\n\r\n"),
    _answered("expires modified", "expires modified 1h;", answer(DATED)),
    _answered("chunked", "", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
              b"2\r\nok\r\n0\r\n\r\n"),
    _answered("until close", "", b"HTTP/1.1 200 OK\r\n\r\nok until close"),
    _answered("old", "", b"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nok"),
    _answered("interim", "", b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN),
    _answered("no reason", "", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
)  # fmt: skip


def _moved(name: str, inside: str, *locations: str, target: str = "/", header: str = "Location",
           ) -> tuple[Case, ...]:  # fmt: skip
    cases = []
    for index, location in enumerate(locations):
        place = f"/m/{name.replace(' ', '-')}/{index}/"
        conf = f"location {place} {{ proxy_pass http://UP{target}; {inside} }}"
        reply = answer(f"{header}: {location}", status="302 Found", body=b"")
        cases.append(Case(f"{name}: {location}", conf, (f"{place}?h=x",), answer=reply))
    return tuple(cases)


HERE: Final = (
    "http://UP/", "http://UP/two/x", "http://UP/two", "/two/x", "http://elsewhere/", "x", "",
    "http://UP", "HTTP://UP/two/", "https://UP/two/", "http://UP/two/?a=b#c",
)  # fmt: skip


def _charset(name: str, said: str, kind: str = "text/x", inside: str = "", **more: str) -> Case:
    fields = [f"X-Accel-Charset: {said}", *([f"Content-Type: {kind}"] if kind else [])]
    fields += [f"{field}: {value}" for field, value in more.items() if field != "status"]
    reply = answer(*fields, status=more.get("status", "200 OK"))
    return _answered(f"charset said, {name}", inside, reply)


CHARSETS: Final = (
    _charset("known", "koi8-r"),
    _charset("in another case", "KOI8-R"),
    _charset("unknown", "utf-9"),
    _charset("empty", ""),
    _charset("known, same", "koi8-r", "text/x; charset=KOI8-R"),
    _charset("known, other", "koi8-r", "text/x; charset=windows-1251"),
    _charset("known, unknown other", "koi8-r", "text/x; charset=utf-9"),
    _charset("known, parameters", "koi8-r", "text/x; a=b"),
    _charset("unknown, other", "utf-9", "text/x; charset=koi8-r"),
    _charset("unknown, same", "utf-9", "text/x; charset=utf-9"),
    _charset("no type", "koi8-r", ""),
    _charset("before charset", "koi8-r", "text/plain", "charset windows-1251;"),
    _charset("unknown before charset", "utf-9", "text/plain", "charset windows-1251;"),
    _charset("before override_charset", "koi8-r", "text/plain",
             "charset windows-1251; override_charset on;"),
    _charset("quoted", "koi8-r", 'text/x; charset="koi8-r"'),
    _charset("redirect", "koi8-r", status="302 Found", Location="/x"),
    _charset("permanent redirect", "koi8-r", "text/x; charset=koi8-r", status="301 Found",
             Location="/x"),
    _charset("404", "koi8-r", status="404 Not Found"),
    _charset("intercepted", "koi8-r", "text/x", "proxy_intercept_errors on; error_page 404 /page;",
             status="404 Not Found"),
    _charset("elsewhere", "koi8-r", "text/x", **{"X-Accel-Redirect": "/internal/file.txt"}),
    _charset("elsewhere, type of the file", "koi8-r", "",
             **{"X-Accel-Redirect": "/internal/file.txt"}),
    _charset("encoded", "koi8-r", "text/x", **{"Content-Encoding": "br"}),
    _charset("encoded, other", "koi8-r", "text/x; charset=windows-1251",
             **{"Content-Encoding": "br"}),
)  # fmt: skip

REDIRECTS: Final = (
    *_moved("default", "", *HERE, target="/two/"),
    *_moved("default without uri", "", *HERE, target=""),
    *_moved("off", "proxy_redirect off;", *HERE, target="/two/"),
    *_moved("prefix", "proxy_redirect http://elsewhere/ /here/;", *HERE),
    *_moved("prefix to a host", "proxy_redirect http://UP/two/ http://$http_host/q/;", *HERE),
    *_moved("variables", "proxy_redirect http://$proxy_host/ /$arg_h/;", *HERE),
    *_moved("regex", r"proxy_redirect ~^http://[^/]+/two/(.*)$ /r/$1;", *HERE),
    *_moved("regex of any case", r"proxy_redirect ~*^http://[^/]+/TWO/(?<rest>.*)$ /r/$rest;",
            *HERE),
    *_moved("several", "proxy_redirect default; proxy_redirect http://elsewhere/ /e/; "
            "proxy_redirect / /rooted/;", *HERE, target="/two/"),
    *_moved("refresh", "", "5; url=http://UP/two/x", "0;URL=http://UP/two/", "3", "url=/two/",
            "5; url=http://elsewhere/", target="/two/", header="Refresh"),
)  # fmt: skip

COOKIES: Final = (
    "a=1; Domain=up.example; Path=/two/x; Expires=Sun, 06 Nov 1994 08:49:37 GMT",
    "a=1; domain=.UP.example; path=/TWO/", "a=1;domain=other.example;path=/", "a",
    "=b; path=/two/",
    "b=2; Secure; HttpOnly; SameSite=Lax", "A=1", "a=1; secure; path=/two/; httponly",
    "a=x=y; SAMESITE=none; Path=/two/", "b=2;  path = /two/ ; foo", "a=1; path",
    "a=\"q;r\"; path=/two/",
)  # fmt: skip
_COOKIE_RULES: Final = (
    "",
    "proxy_cookie_domain up.example here.example;",
    "proxy_cookie_domain .up.example $arg_h.example; proxy_cookie_domain other.example o;",
    r"proxy_cookie_domain ~\.?([a-z]+)\.EXAMPLE$ $1.test;",
    "proxy_cookie_domain off;",
    "proxy_cookie_path /two/ /;",
    "proxy_cookie_path ~^/two/(.*)$ /t/$1; proxy_cookie_path / /other/;",
    "proxy_cookie_path ~*^/two/ $arg_h;",
    "proxy_cookie_path /two/ /; proxy_cookie_domain up.example here; proxy_cookie_flags a secure;",
    "proxy_cookie_flags a secure httponly samesite=strict;",
    "proxy_cookie_flags ~ secure samesite=none;",
    "proxy_cookie_flags ~^B$ nosecure nohttponly nosamesite;",
    "proxy_cookie_flags ~(a) samesite=lax; proxy_cookie_flags a secure;",
    "proxy_cookie_flags $arg_n httponly $arg_f;",
    "proxy_cookie_flags ~. nosamesite secure;",
    "proxy_cookie_flags off;",
)

COOKIE_CASES: Final = tuple(
    Case(
        f"cookies, {rule}",
        f"location /c/{number}/ {{ proxy_pass http://UP; {rule} }}",
        (f"/c/{number}/?h=x&n=a&f=samesite=strict",),
        answer=answer(*(f"Set-Cookie: {cookie}" for cookie in COOKIES)),
    )
    for number, rule in enumerate(_COOKIE_RULES)
)

ELSEWHERE: Final = (
    "Content-Type: text/theirs", "Set-Cookie: a=1", "Set-Cookie: b=2", "Cache-Control: no-store",
    "Expires: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Disposition: inline", "ETag: \"theirs\"",
    "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "X-Theirs: 1",
    "Content-Language: de", "Link: </a>", "Vary: Accept",
)  # fmt: skip


def _accelerated(
    name: str, uri: str, inside: str = "", status: str = "200 OK", **more: object
) -> Case:
    number = "".join(c for c in name if c.isalnum())
    return Case(
        f"elsewhere, {name}",
        f"location /x/{number}/ {{ proxy_pass http://UP; {inside} }}",
        (f"/x/{number}/",),
        answer=answer(f"X-Accel-Redirect: {uri}", *ELSEWHERE, status=status, body=b"theirs"),
        **more,  # type: ignore[arg-type]
    )


ACCELERATED: Final = (
    _accelerated("file", "/internal/file.txt"),
    Case("elsewhere, ranges", "location /x/ranges/ { proxy_pass http://UP; }", ("/x/ranges/",),
         answer=answer("X-Accel-Redirect: /internal/file.txt", "Accept-Ranges: bytes")),
    _accelerated("no such file", "/internal/none.txt"),
    _accelerated("range", "/internal/file.txt", fields=("Range: bytes=2-4",)),
    _accelerated("two ranges", "/internal/file.txt", fields=("Range: bytes=0-1,3-4",)),
    _accelerated("condition", "/internal/file.txt",
                 fields=("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",)),
    _accelerated("their etag", "/internal/file.txt", fields=("If-None-Match: \"theirs\"",)),
    _accelerated("head", "/internal/file.txt", method="HEAD"),
    _accelerated("post", "/internal/file.txt", method="POST", body=b"hello"),
    _accelerated("query", "/said?q=a%20b&c=d"),
    _accelerated("named", "@said"),
    _accelerated("named post", "@said", method="POST", body=b"hello"),
    _accelerated("no such name", "@none"),
    _accelerated("escaped", "/internal/a%20b.txt"),
    _accelerated("escaped twice", "/internal/a%2520b.txt"),
    _accelerated("unsafe", "/internal/../file.txt"),
    _accelerated("unsafe and escaped", "/internal/%2e%2e/file.txt"),
    _accelerated("not normalised", "/internal//file.txt"),
    _accelerated("another upstream", "/again/x"),
    _accelerated("another upstream with a body", "/again/x", method="POST", body=b"hello"),
    _accelerated("a large body", "/again/x", method="PUT", body=b"hello" * 50_000),
    _accelerated("another upstream, named", "@again", method="POST", body=b"hello"),
    _accelerated("ignored", "/internal/file.txt", "proxy_ignore_headers X-Accel-Redirect;"),
    _accelerated("shown", "/internal/file.txt", "proxy_pass_header X-Accel-Redirect; "
                 "proxy_ignore_headers X-Accel-Redirect;"),
    _accelerated("of a 404", "/internal/file.txt", status="404 Not Found"),
    _accelerated("intercepted", "/internal/file.txt",
                 "proxy_intercept_errors on; error_page 404 = /page;", status="404 Not Found"),
    _accelerated("expires", "/expires/file.txt"),
    _accelerated("redirect there", "/moved"),
    _accelerated("error page there", "/failing"),
)  # fmt: skip

#: Where we differ, and why (docs/differences.md).
DIFFERENT: Final = {
    "regex and capture": "a target with a space is escaped",
    "capture and args": "a target with a space is escaped",
    "uri": "a target with a space is escaped",
    "proxy connection": "not a field of the message",
    "method of a variable": "an empty method is no request",
    "304 with a length": "a length of 0 would be that of the 200",
    "chunked": "a small answer has a length",
    "elsewhere, ranges": "nginx says Accept-Ranges twice",
    "interim": "nginx takes a 100 for the answer",
}

CASES: Final = (
    *PASSES, *FIELDS, *ANSWERS, *CHARSETS, *REDIRECTS, *COOKIE_CASES, *ACCELERATED,
)  # fmt: skip

SERVER: Final = """
    location /known { charset koi8-r; }
    location /internal/ { internal; alias ROOT/; }
    location /expires/ { internal; alias ROOT/; expires 1h; add_header X-Ours 1; }
    location = /page { return 200 "page"; }
    location @page { return 503 "named page"; }
    location = /said { internal; return 200 "$uri $args $request_method"; }
    location @said { return 200 "$uri $request_method"; }
    location /again/ { proxy_pass http://SECOND; }
    location @again { proxy_pass http://SECOND; }
    location = /moved { return 302 /elsewhere; }
    location = /failing { return 404; error_page 404 /page; }
"""
