"""Static files, ``try_files`` and ``error_page``."""

from __future__ import annotations

from .section import Section, ask

FILES_SECTION = Section(
    "files",
    r"""
    index index.html;
    location /alias/ { alias SITE/www/other/; }
    location /aliasnoslash { alias SITE/www/other/; }
    location /bare/ { alias SITE/www/other; }
    location = /exactalias { alias SITE/www/a.txt; }
    location ~ ^/rxalias/(.+)$ { alias SITE/www/$1; }
    location ~ ^/rxdir/(.*)$ { alias SITE/www/other/; }
    location /rootslash/ { root SITE/www/other/; }
    location /varroot/ { root SITE/$arg_root; rewrite ^/varroot/(.*)$ /$1 break; }
    location /second/ { index none.html $arg_i b.html; }
    location /absindex/ { index none.html /a.txt; alias SITE/www/second/; }
    location /empty-dir/ { alias SITE/www/empty-dir/; }
    location /private { internal; }
    location /redirect/ { absolute_redirect off; alias SITE/www/; }
    location /noport/ { port_in_redirect off; alias SITE/www/; }
    location /server-name/ { server_name_in_redirect on; alias SITE/www/; }
    location /packed/ { gzip_static on; gzip_vary on; alias SITE/www/; }
    location /always/ { gzip_static always; alias SITE/www/; }
    location /etagless/ { etag off; alias SITE/www/; }
    location /ranges/ { max_ranges 1; alias SITE/www/; }
    location /linkless/ { disable_symlinks on from=SITE; alias SITE/www/; }
    location /owned/ { disable_symlinks if_not_owner from=SITE; alias SITE/www/; }
    location /tried/ {
        disable_symlinks on from=SITE; root SITE/www;
        try_files /$arg_f /$arg_f/ =418;
    }
    location /tested/ {
        disable_symlinks on from=SITE; root SITE/www;
        set $is "";
        if (-f SITE/www/$arg_f) { set $is "${is}f"; }
        if (-d SITE/www/$arg_f) { set $is "${is}d"; }
        if (-e SITE/www/$arg_f) { set $is "${is}e"; }
        if (-x SITE/www/$arg_f) { set $is "${is}x"; }
        if (!-e SITE/www/$arg_f) { set $is "${is}!"; }
        return 200 "$is";
    }
    location /types/ { types { text/x-own txt; } default_type text/x-rest; alias SITE/www/; }
    location /put/ { client_max_body_size 10; alias SITE/www/; }
    location /post/ { client_max_body_size 0; alias SITE/www/; }
    """,
    (
        "/", "/a.txt", "/dir", "/dir?x=1", "/dir/", "/dir/?x=1", "/with%20space",
        "/with%20space?x", "/with%20space/", "/indexed/", "/indexed", "/indexed/index.html",
        "/a.txt/", "/a.txt/x", "/none", "/none/", "/empty.txt", "/alias/a.txt", "/alias/sub/",
        "/alias/sub", "/alias/sub?x=1", "/alias/", "/alias", "/aliasnoslash", "/aliasnoslash/",
        "/aliasnoslashsub/", "/aliasnoslasha.txt", "/aliasnoslash/sub/", "/bare/", "/bare/sub/",
        "/bare//a.txt", "/bare/a.txt", "/exactalias", "/exactalias?x", "/rxalias/a.txt",
        "/rxalias/dir", "/rxalias/dir/", "/rxalias/dir/file.txt", "/rxalias/b%20c.txt",
        "/rxdir/", "/rxdir/x", "/rxdir/sub/", "/rootslash/a.txt", "/varroot/a.txt?root=www",
        "/varroot/a.txt?root=www/other", "/varroot/sub/?root=www/other", "/second/",
        "/second/?i=b.html", "/second/?i=/a.txt", "/absindex/", "/absindex/?x=1", "/empty-dir/",
        "/empty-dir", "/private", "/private/x", "/redirect/dir", "/redirect/dir?x=1",
        "/redirect/with%20space", "/noport/dir", "/server-name/dir", "/packed/zipped.txt",
        "/packed/a.txt", "/packed/only.txt", "/always/only.txt", "/always/zipped.txt",
        "/etagless/a.txt", "/linkless/a.txt", "/linkless/link.txt", "/linkless/linkdir/file.txt",
        "/owned/link.txt", "/owned/linkdir/file.txt", "/owned/foreign.txt", "/link.txt",
        "/broken.txt", "/owned/broken.txt", "/linkless/broken.txt", "/linkless/dir", "/linkless/",
        "/linkless/dir/", "/linkless/linkdir/", "/linkless/linkdir",
        *(
            f"/{place}/?f={name}" for place in ("tried", "tested") for name in (
                "a.txt", "dir", "link.txt", "linkdir", "linkdir/file.txt", "broken.txt", "none",
            )
        ),
        "/fifo", "/fifo/", "/types/a.txt", "/types/page.html", "/long.txt", "/" + "x" * 300,
        "/dir/../a.txt", "/dir/%2e%2e/a.txt", "/%2e%2e/a.txt", "/dir//file.txt",
        ask("GET", "/packed/zipped.txt", "Accept-Encoding: gzip"),
        ask("HEAD", "/packed/zipped.txt", "Accept-Encoding: gzip"),
        ask("GET", "/packed/only.txt", "Accept-Encoding: gzip"),
        ask("GET", "/packed/zipped.txt", "Accept-Encoding: gzip", "Range: bytes=0-3"),
        ask("GET", "/packed/a.txt", "Accept-Encoding: gzip"),
        ask("GET", "/etagless/a.txt", 'If-None-Match: "x"'),
        ask("GET", "/long.txt", "Range: bytes=0-1,4-5"),
        ask("GET", "/long.txt", "Range: bytes=900-"),
        ask("GET", "/ranges/long.txt", "Range: bytes=0-1,4-5"),
        ask("GET", "/ranges/long.txt", "Range: bytes=0-1"),
        ask("HEAD", "/a.txt"), ask("POST", "/a.txt", body=b"x"),
        ask("POST", "/none", body=b"x"), ask("POST", "/dir", body=b"x"),
        ask("POST", "/dir/", body=b"x"),
        ask("POST", "/alias/", body=b"x"), ask("PUT", "/a.txt", body=b"x"), ask("PUT", "/dir/"),
        ask("DELETE", "/none"), ask("OPTIONS", "/a.txt"), ask("PATCH", "/empty-dir/"),
        ask("HEAD", "/dir"), ask("HEAD", "/none"), ask("PUT", "/put/a.txt", body=b"x" * 11),
        ask("POST", "/put/a.txt", body=b"x" * 10), ask("POST", "/post/a.txt", body=b"x" * 2000),
        b"GET /dir HTTP/1.1\r\nHost: NAME:1234\r\nConnection: close\r\n\r\n",
        b"GET /dir HTTP/1.1\r\nHost: NAME.\r\nConnection: close\r\n\r\n",
    ),
)  # fmt: skip

TRY_FILES = Section(
    "try",
    r"""
    location / { try_files $uri $uri/ /fallback.txt; }
    location /code/ { try_files /none$uri =410; }
    location /code404/ { try_files /none$uri =404; error_page 404 /404.html; }
    location /code200/ { try_files /none =200; }
    location /code204/ { try_files /none =204; }
    location /code301/ { try_files /none =301; }
    location /named/ { try_files /none$uri @named; }
    location @named { return 200 "named $uri $args\n"; }
    location /unnamed/ { try_files /none @nowhere; }
    location /args/ { try_files /none /show?tried=$uri&$args; }
    location /noargs/ { try_files /none /show; }
    location /show { return 200 "show $uri [$args]\n"; }
    location /first { try_files /a.txt /b.txt =404; }
    location /dironly/ { try_files /dir/ =404; }
    location /dirasfile/ { try_files /dir =404; }
    location /fileasdir/ { try_files /a.txt/ =404; }
    location /self/ { try_files /none $uri; }
    location /alias/ { alias SITE/www/other/; try_files $uri $uri/ /fallback.txt; }
    location /aliasfix/ { alias SITE/www/other/; try_files a.txt =404; }
    location /aliasdir/ { alias SITE/www/; try_files dir/ =404; }
    location ~ ^/rx/(.*)$ { alias SITE/www/other/; try_files $1 =404; }
    location ~ ^/rxroot/(?<rest>.*)$ { try_files /other/$rest /$rest =404; }
    location /rewritten/ { rewrite ^/rewritten/(.*)$ /$1 break; try_files $uri =404; }
    location /proxyish/ { try_files $uri /index.html; }
    location /dynamic/ { try_files /none $arg_to; }
    location /typed/ { try_files /page.html =404; }
    location /inner/ { try_files $uri /private.txt; location = /inner/x { return 200 "x\n"; } }
    location = /private.txt { internal; return 200 "private\n"; }
    location /post/ { try_files $uri /a.txt; }
    location /withif/ { if ($arg_q) { set $z 1; } try_files /a.txt =404; }
    location /space/ { try_files "/b c.txt" =404; }
    """,
    (
        "/a.txt", "/dir", "/dir/", "/dir?x=1", "/none", "/none/x?y=1", "/", "/code/x",
        "/code404/x", "/code200/x", "/code204/x", "/code301/x", "/named/x?y=1", "/named/%20",
        "/unnamed/x", "/args/x?y=1", "/args/a%20b", "/noargs/x?y=1", "/first", "/first?x",
        "/dironly/x", "/dirasfile/x", "/fileasdir/x", "/self/x", "/alias/a.txt", "/alias/sub/",
        "/alias/sub", "/alias/none", "/aliasfix/x", "/aliasdir/x", "/rx/sub/c.txt", "/rx/none",
        "/rxroot/a.txt", "/rxroot/page.html", "/rxroot/none", "/rewritten/a.txt",
        "/rewritten/none", "/proxyish/x", "/dynamic/x?to=/a.txt", "/dynamic/x?to=@named",
        "/dynamic/x?to=/show?q=1", "/dynamic/x", "/typed/x", "/inner/x", "/inner/y",
        "/private.txt", "/withif/", "/withif/?q=1", "/space/", ask("POST", "/post/x", body=b"x"),
        ask("HEAD", "/none"), ask("PUT", "/code/x", body=b"x"),
    ),
)  # fmt: skip

ERRORS = Section(
    "errors",
    r"""
    error_page 404 /404.html;
    error_page 500 502 503 504 /50x.html;
    location = /404.html { internal; }
    location /top/ { }
    location /own/ { error_page 404 =200 /page.html; }
    location /ownother/ { error_page 403 =200 /page.html; }
    location /eq/ { error_page 404 = /given; }
    location /eqredirect/ { error_page 404 = /given301; }
    location /eq404/ { error_page 404 =404 /page.html; }
    location /eq503/ { error_page 404 =503 /page.html; }
    location /eq204/ { error_page 404 =204 /page.html; }
    location /given { return 201 "given $uri $args $request_uri\n"; }
    location /given301 { return 301 /moved; }
    location /named/ { error_page 404 @named; }
    location /namedeq/ { error_page 404 =202 @named; }
    location /namedzero/ { error_page 404 = @named; }
    location @named { return 200 "named $uri\n"; }
    location /namedfile/ { error_page 404 @file; }
    location @file { rewrite ^ /page.html break; }
    location /unnamed/ { error_page 404 @nowhere; }
    location /url/ { error_page 404 http://example.org/lost?u=$uri; }
    location /url301/ { error_page 404 =301 http://example.org/lost; }
    location /url200/ { error_page 404 =200 http://example.org/lost; }
    location /relative/ { error_page 404 page.html; }
    location /variable/ { error_page 404 $arg_to; }
    location /args/ { error_page 404 /given?from=$uri; }
    location /missing/ { error_page 404 /none.html; }
    location /chain/ { error_page 404 /chain2/x; }
    location /chain2/ { error_page 404 /page.html; }
    location /rchain/ { recursive_error_pages on; error_page 404 /rchain2/x; }
    location /rchain2/ { recursive_error_pages on; error_page 404 =206 /page.html; }
    location /rloop/ { recursive_error_pages on; error_page 404 500 /rloop/x; }
    location /rurl/ { recursive_error_pages on; error_page 404 302 http://example.org/; }
    location /several/ { error_page 404 =201 /given; error_page 403 404 =202 /page.html; }
    location /redirected/ { error_page 301 302 =200 /page.html; return 301 /x; }
    location /text/ { error_page 403 /page.html; return 403 "said"; }
    location /413/ { client_max_body_size 5; error_page 413 /page.html; }
    location /413named/ { client_max_body_size 5; error_page 413 = @named; }
    location /416/ { error_page 416 /page.html; alias SITE/www/; }
    location /412/ { error_page 412 /page.html; alias SITE/www/; }
    location /405/ { error_page 405 =200 $uri; alias SITE/www/; }
    location /500/ { return 500; }
    location /502/ { return 502; }
    location /status/ { error_page 404 /told?u=$uri&s=$status; }
    location /statuseq/ { error_page 404 = /told?s=$status; }
    location /status410/ { error_page 404 =410 /told?s=$status; }
    location /statusnamed/ { error_page 404 @told; }
    location /statusurl/ { error_page 404 http://example.org/$status; }
    location /status201/ { return 201 "$status $limit_rate"; }
    location /status302/ { return 302 /$status; }
    location /told { return 200 "$status $args"; }
    location @told { return 200 "$status"; }
    location /503/ { error_page 503 =503 /page.html; return 503; }
    location /401/ { error_page 401 /page.html; return 401; }
    location /400/ { error_page 400 /page.html; return 400; }
    location /444/ { error_page 404 =444 /page.html; }
    location /to444/ { error_page 404 = /give444; }
    location /give444 { return 444; }
    location /denied/ { deny all; error_page 403 /page.html; }
    location /denied404/ { deny all; error_page 403 =404 /404.html; }
    location /allowed/ { allow 127.0.0.1; deny all; return 200 "allowed"; }
    location /deniedfile/ { allow 10.0.0.0/8; deny 127.0.0.0/8; allow all; alias SITE/www/; }
    location /firstallow/ { allow 127.0.0.0/24; deny 127.0.0.1; alias SITE/www/; }
    location /six/ { allow ::1; deny all; }
    location /head/ { error_page 404 /given; }
    location /added/ { add_header X-A 1; add_header X-B 2 always; error_page 404 /page.html; }
    location /loop/ { try_files /none /loop2/; }
    location /loop2/ { try_files /none /loop/; }
    location /loopnamed/ { try_files /none @loop; }
    location @loop { rewrite ^ /loopnamed/x last; }
    location /cycle { rewrite ^ /cycle2 last; }
    location /cycle2 { rewrite ^ /cycle last; }
    location /ten/ { rewrite ^/ten/x(.*)$ /ten/$1 last; return 200 "out $uri\n"; }
    location /tenredirects/ { try_files /none /ten/xxxxxxxxx; }
    """,
    (
        "/none", "/404.html", "/top/x", "/own/x", "/ownother/x", "/eq/x", "/eq/x?y=1",
        "/eqredirect/x", "/eq404/x", "/eq503/x", "/eq204/x", "/named/x", "/namedeq/x",
        "/namedzero/x", "/namedfile/x", "/unnamed/x", "/url/x", "/url301/x", "/url200/x",
        "/relative/x", "/variable/x?to=/page.html", "/variable/x?to=@named", "/variable/x",
        "/variable/x?to=http://example.org/", "/args/x?y=1", "/missing/x", "/chain/x",
        "/status/x", "/status201/", "/status302/", "/statuseq/x", "/status410/x",
        "/statusnamed/x", "/statusurl/x",
        "/rchain/x", "/rloop/x", "/rurl/x", "/several/x", "/redirected/x", "/text/x", "/500/",
        "/502/", "/503/", "/401/", "/400/", "/444/x", "/to444/x", "/denied/x", "/denied404/x",
        "/allowed/x", "/deniedfile/a.txt", "/firstallow/a.txt", "/six/x", "/added/x",
        "/loop/", "/loopnamed/", "/cycle", "/ten/", "/ten/xxxxxxxxx", "/ten/xxxxxxxxxx",
        "/ten/xxxxxxxxxxx", "/tenredirects/", "/ten/" + "x" * 12,
        ask("HEAD", "/head/x"), ask("POST", "/head/x", body=b"abc"), ask("HEAD", "/none"),
        ask("POST", "/none", body=b"abc"), ask("POST", "/413/x", body=b"123456"),
        ask("POST", "/413named/x", body=b"123456"), ask("POST", "/413/x", body=b"12345"),
        ask("GET", "/416/long.txt", "Range: bytes=900-"),
        ask("GET", "/412/a.txt", 'If-Match: "x"'), ask("POST", "/405/a.txt", body=b"x"),
        ask("GET", "/none", "Range: bytes=0-3"), ask("GET", "/own/x", "Range: bytes=0-3"),
        ask("GET", "/none", 'If-None-Match: *'), ask("GET", "/own/x", 'If-None-Match: *'),
        ask("GET", "/none", "Accept-Encoding: gzip"), ask("PUT", "/own/x", body=b"x"),
        b"GET /400/ HTTP/1.1\r\nHost: NAME\r\n\r\n", b"GET /500/ HTTP/1.1\r\nHost: NAME\r\n\r\n",
        b"GET /none HTTP/1.1\r\nHost: NAME\r\n\r\n",
    ),
)  # fmt: skip
