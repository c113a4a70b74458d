"""Matching of locations and of server names."""

from __future__ import annotations

from .section import Section, ask

LOCATIONS = Section(
    "locations",
    r"""
    location = / { return 200 "= /\n"; }
    location / { return 200 "/\n"; }
    location /documents/ { return 200 "/documents/\n"; }
    location ^~ /images/ { return 200 "^~ /images/\n"; }
    location ~* \.(gif|jpg|jpeg)$ { return 200 "~* $1\n"; }
    location ~ \.JPG$ { return 200 "never\n"; }
    location /nest/ {
        location ^~ /nest/pref/ { return 200 "nested ^~\n"; }
        location = /nest/exact { return 200 "nested =\n"; }
        location = /nest/exact.gif { return 200 "nested = gif\n"; }
        location ~ \.gif$ { return 200 "nested ~\n"; }
        location /nest/plain/ { return 200 "nested plain\n";
            location ~ /third(?<rest>.*)$ { return 200 "third $rest\n"; } }
        return 200 "/nest/\n";
    }
    location ^~ /hat/ { location /hat/plain/ { return 200 "in hat\n"; }
        location ~ \.x$ { return 200 "x in hat\n"; } return 200 "hat\n"; }
    location ~ ^/regex/ { location ~ \.y$ { return 200 "y in regex\n"; }
        location ~ inner { return 200 "inner in regex\n"; } return 200 "regex\n"; }
    location ~ ^/cap/(?<one>[a-z]+)/([0-9]+)$ { return 200 "$one $2 $1\n"; }
    location ~* ^/UPPER/([a-z]+)$ { return 200 "upper $1\n"; }
    location /slash/ { proxy_pass http://127.0.0.1:BACKEND/; }
    location /slashrx/ { proxy_pass http://127.0.0.1:BACKEND/; }
    location ~ ^/slashrx { return 200 "regex\n"; }
    location /both/ { proxy_pass http://127.0.0.1:BACKEND/; }
    location = /both { return 200 "exactly both\n"; }
    location /pair/ { proxy_pass http://127.0.0.1:BACKEND/; }
    location /pair { return 200 "pair\n"; }
    location "/a b/" { return 200 "space\n"; }
    location /a%20c/ { return 200 "encoded\n"; }
    location ~ "^/br{2}$" { return 200 "braces\n"; }
    location =/tight { return 200 "tight\n"; }
    location ^~/tighter { return 200 "tighter\n"; }
    location ~^/tildetight$ { return 200 "tilde\n"; }
    location ~ /u\d$ { return 200 "$uri\n"; }
    location /inherit/ { add_header X-In 1; location /inherit/deep/ { return 200 "deep\n"; }
        location /inherit/own/ { add_header X-Own 1; return 200 "own\n"; } }
    """,
    (
        "/", "/index.html", "/documents/d.html", "/documents/1.jpg", "/images/1.gif", "/x.GIF",
        "/x.JPG", "/nest/", "/nest/a.jpg", "/nest/a.gif", "/nest/pref/a", "/nest/pref/a.gif",
        "/nest/pref/a.jpg", "/nest/exact", "/nest/exact.gif", "/nest/exact/", "/nest/plain/a",
        "/nest/plain/a.gif", "/nest/plain/a.jpg", "/nest/plain/third.x", "/nest/plain/third.gif",
        "/hat/a", "/hat/a.gif", "/hat/plain/a", "/hat/plain/a.gif", "/hat/a.x", "/hat/plain/a.x",
        "/regex/a", "/regex/a.y", "/regex/inner", "/regex/inner.y", "/regex/a.gif",
        "/cap/abc/12", "/cap/abc/x", "/upper/abc", "/slash", "/slash?x=1", "/slash/", "/slashrx",
        "/slashx", "/both", "/both/", "/pair", "/pair/", "/a%20b/x", "/a%20c/x", "/a%2520c/x",
        "/brr", "/br", "/tight", "/tightx", "/tighter.gif", "/tildetight", "/u1", "/u12",
        "/inherit/deep/", "/inherit/own/", ask("POST", "/slash", body=b"x"),
        ask("HEAD", "/slash"),
    ),
)  # fmt: skip

SERVERS = """
    server { listen 127.0.0.1:PORT; server_name exact.example exact2.example;
        location / { return 200 "exact $host $server_name\n"; } }
    server { listen 127.0.0.1:PORT; server_name *.example;
        location / { return 200 "leading $host\n"; } }
    server { listen 127.0.0.1:PORT; server_name *.deep.example;
        location / { return 200 "deeper $host\n"; } }
    server { listen 127.0.0.1:PORT; server_name trailing.*;
        location / { return 200 "trailing $host\n"; } }
    server { listen 127.0.0.1:PORT; server_name .dotted.net;
        location / { return 200 "dotted $host\n"; } }
    server { listen 127.0.0.1:PORT; server_name ~^(?<user>.+)\\.users\\.net$;
        location / { return 200 "user $user $1\n"; }
        location ~ /(\\d) { return 200 "$1 $user\n"; } }
    server { listen 127.0.0.1:PORT; server_name "";
        location / { return 200 "nameless [$host]\n"; } location /dir { return 301 /x; } }
    server { listen 127.0.0.1:PORT; server_name bare.example; }
    server { listen 127.0.0.1:PORT; server_name whole.example; return 410; location / { } }
    server { listen 127.0.0.1:PORT; server_name tryfiles.example; root SITE/www;
        try_files $uri /a.txt; }
    server { listen 127.0.0.1:PORT; server_name merge.example; merge_slashes off; root SITE/www;
        location /dir/ { return 200 "$uri\n"; } location //dir { return 200 "two $uri\n"; } }
    server { listen 127.0.0.1:PORT; server_name broken.example; root SITE/www;
        error_page 400 /50x.html; error_page 405 =200 /page.html; server_tokens off; }
    server { listen 127.0.0.1:PORT; server_name last.example; rewrite ^/go/(.*)$ /$1 last;
        rewrite ^/stop/(.*)$ /$1 break; rewrite ^/then/(.*)$ /go/$1; root SITE/www;
        location /dir/ { rewrite ^/dir/again$ /go/a.txt last; } error_page 404 /go/404.html; }
"""

HOSTS = Section(
    "hosts",
    "",
    (*(
        b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
        for host, target in (
            (b"exact.example", b"/"), (b"EXACT.Example", b"/"), (b"exact2.example", b"/"),
            (b"exact.example:99", b"/"), (b"exact.example.", b"/"), (b"a.example", b"/"),
            (b"a.b.example", b"/"), (b"a.deep.example", b"/"), (b"deep.example", b"/"),
            (b"trailing.com", b"/"), (b"trailing.example", b"/"), (b"trailing.co.uk", b"/"),
            (b"dotted.net", b"/"), (b"x.dotted.net", b"/"), (b"xdotted.net", b"/"),
            (b"joe.users.net", b"/"), (b"joe.users.net", b"/5"), (b"bare.example", b"/"),
            (b"whole.example", b"/"), (b"tryfiles.example", b"/zz"),
            (b"tryfiles.example", b"/dir/file.txt"), (b"merge.example", b"//dir/x"),
            (b"merge.example", b"/dir//x"), (b"merge.example", b"/dir/../dir/x"),
            (b"merge.example", b"/x//%2e%2e/a.txt"), (b"last.example", b"/go/a.txt"),
            (b"last.example", b"/stop/a.txt"), (b"last.example", b"/then/a.txt"),
            (b"last.example", b"/dir/again"), (b"last.example", b"/none"),
            (b"broken.example", b"/%zz"), (b"broken.example", b"/none"),
            (b"broken.example", b"/dir/../../x"), (b"unknown", b"/"), (b"", b"/"),
        )),
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /dir HTTP/1.0\r\n\r\n",
        b"GET http://exact.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        b"PUT /a.txt HTTP/1.1\r\nHost: broken.example\r\nConnection: close\r\n\r\n",
    ),
)  # fmt: skip
