"""``rewrite``, ``return``, ``if`` and ``set``."""

from __future__ import annotations

from .section import Section, ask

REWRITE = Section(
    "rewrite",
    r"""
    location /show { return 200 "show $uri [$args] $request_uri\n"; }
    location /plain/ { rewrite ^/plain/(.*)$ /show/$1 last; return 200 "not here\n"; }
    location /brk/ { rewrite ^/brk/(.*)$ /$1 break; }
    location /twice/ { rewrite ^/twice/(.*)$ /once/$1; rewrite ^/once/(.*)$ /show/twice/$1; }
    location /then-return/ { rewrite ^ /a.txt; return 200 "returned $uri\n"; }
    location /then-break/ { rewrite ^/then-break/(.*)$ /$1; break; return 200 "no\n"; }
    location /nomatch/ { rewrite ^/other /show; return 200 "no match $uri\n"; }
    location /temp/ { rewrite ^/temp/(.*)$ /show/$1 redirect; }
    location /perm/ { rewrite ^/perm/(.*)$ /show/$1 permanent; }
    location /abs/ { rewrite ^/abs/(.*)$ http://example.org/$1; return 200 "no\n"; }
    location /absperm/ { rewrite ^/absperm/(.*)$ https://example.org/$1 permanent; }
    location /scheme/ { rewrite ^/scheme/(.*)$ $scheme://example.org/$1; }
    location /addargs/ { rewrite ^/addargs/(.*)$ /show/$1?x=1 last; }
    location /dropargs/ { rewrite ^/dropargs/(.*)$ /show/$1? last; }
    location /replargs/ { rewrite ^/replargs/(.*)$ /show?x=$1&y=2? last; }
    location /caparg/ { rewrite ^/caparg/(.*)$ /show?cap=$1 last; }
    location /redirarg/ { rewrite ^/redirarg/(.*)$ /show?cap=$1 redirect; }
    location /redirdrop/ { rewrite ^/redirdrop/(.*)$ /show/$1? redirect; }
    location /noslash/ { rewrite ^/noslash/(.*)$ show/$1 last; }
    location /empty/ { rewrite ^/empty/(.*)$ $1 last; }
    location /named/ { rewrite ^/named/(?<first>[^/]*)/(?<second>.*)$ /show/$second/$first last; }
    location /back/ { rewrite ^/back/(\d+)-(\w+)\.(\w+)$ /show/$3/$2/$1/$4 last; }
    location /loop/ { rewrite ^/loop/(.*)$ /loop/x$1 last; }
    location /self { rewrite ^/self(.*)$ /self$1 last; }
    location /case/ { rewrite (?i)^/case/ABC$ /show/case last; return 200 "case no\n"; }
    location /optional/ { rewrite ^/optional/(a)?(b)?$ /show?1=$1&2=$2 last; }
    location "/with space/" { rewrite "^/with space/(.*)$" "/show/got $1" last; }
    location /quoted/ { rewrite "^/quoted/(\d{2})$" /show/two-$1 last; return 200 "not two\n"; }
    location /file/ { rewrite ^/file/(.*)$ /dir/$1 last; }
    location /usecap/ { rewrite ^/usecap/(.*)$ /x/$1 break; return 200 "cap $1 $uri\n"; }
    location /setcap/ { rewrite ^/setcap/(.*)$ /y/$1; set $kept $1; return 200 "kept $kept\n"; }
    """,
    (
        "/show", "/show?a=1", "/show/%41%20b?x=%20y", "/plain/a", "/plain/a?b=c", "/plain/",
        "/plain/a%20b?c=%20d", "/plain/%3Fx", "/plain/%25x", "/plain/a+b", "/brk/a.txt",
        "/brk/dir/file.txt", "/brk/dir", "/brk/dir/", "/brk/missing", "/brk/a.txt?x",
        "/brk/b%20c.txt", "/twice/z", "/twice/z?q=1", "/then-return/", "/then-break/a.txt",
        "/nomatch/x", "/temp/x", "/temp/x?y=1", "/temp/a%20b", "/temp/%E2%82%AC", "/temp/a+b",
        "/temp/a%3Fb%41", "/temp/a%25b", "/temp/a%26b", "/temp/a%23b", "/temp/a%22b%3Cc",
        "/temp/x?y=%20%41", "/perm/x", "/perm/x?y", "/abs/x", "/abs/x?y=1", "/absperm/x",
        "/scheme/x", "/scheme/a%20b?c", "/addargs/x", "/addargs/x?y=2", "/dropargs/x?y=2",
        "/replargs/x?z=3", "/replargs/a&b", "/caparg/a%26b", "/caparg/a&b", "/caparg/a b",
        "/caparg/a%20b?c=d", "/caparg/a+b", "/caparg/a&b?c=%41", "/caparg/a;b?c=+",
        "/caparg/%E2%82%AC", "/redirarg/a%26b", "/redirarg/a&b?c=1", "/redirarg/a%20b",
        "/redirdrop/x?y=1", "/redirdrop/a%20b?y=1", "/noslash/x", "/empty/", "/empty/x",
        "/empty//x", "/named/a/b", "/named/a/b/c", "/back/12-ab.jpg", "/loop/", "/self",
        "/self/x", "/case/abc", "/case/x", "/optional/", "/optional/a", "/optional/b",
        "/optional/ab", "/with%20space/x", "/with%20space/x%20y", "/quoted/12", "/quoted/123",
        "/file/file.txt", "/file/", "/file/missing", "/usecap/q", "/setcap/q",
        ask("HEAD", "/show"), ask("POST", "/show", body=b"x"), ask("HEAD", "/temp/x"),
        ask("DELETE", "/brk/a.txt"), ask("POST", "/brk/a.txt", body=b"x"),
        ask("PUT", "/plain/x", body=b"abc"),
    ),
)  # fmt: skip

RETURN = Section(
    "return",
    r"""
    location = /200 { return 200; }
    location = /200text { return 200 "text"; }
    location = /200text.html { return 200 "<b>text</b>"; }
    location = /typed { default_type text/html; return 200 "typed"; }
    location = /200empty { return 200 ""; }
    location = /204 { return 204; }
    location = /204text { return 204 "text"; }
    location = /201 { return 201 "made"; }
    location = /301 { return 301 /there; }
    location = /302 { return 302 http://example.org/there?a=$arg_a; }
    location = /303 { return 303 /there; }
    location = /304 { return 304; }
    location = /305 { return 305 "text"; }
    location = /307 { return 307 there; }
    location = /308 { return 308 /there; }
    location = /301none { return 301; }
    location = /url { return http://example.org$request_uri; }
    location = /400 { return 400; }
    location = /400text { return 400 "bad"; }
    location = /401 { return 401; }
    location = /402 { return 402; }
    location = /403 { return 403; }
    location = /404 { return 404; }
    location = /404text { return 404 "not here"; }
    location = /404empty { return 404 $arg_none; }
    location = /405 { return 405; }
    location = /406 { return 406; }
    location = /408 { return 408; }
    location = /409 { return 409; }
    location = /410 { return 410; }
    location = /411 { return 411; }
    location = /412 { return 412; }
    location = /413 { return 413; }
    location = /414 { return 414; }
    location = /415 { return 415; }
    location = /416 { return 416; }
    location = /418 { return 418; }
    location = /421 { return 421; }
    location = /429 { return 429; }
    location = /444 { return 444; }
    location = /451 { return 451; }
    location = /494 { return 494; }
    location = /497 { return 497; }
    location = /499 { return 499; }
    location = /500 { return 500; }
    location = /500text { return 500 "broken"; }
    location = /501 { return 501; }
    location = /502 { return 502; }
    location = /503 { return 503; }
    location = /504 { return 504; }
    location = /505 { return 505; }
    location = /507 { return 507; }
    location = /509 { return 509; }
    location = /599 { return 599; }
    location = /headers { add_header X-One 1; add_header X-Two 2 always; return 404; }
    location = /headers200 { add_header X-One 1; add_header X-Two $uri always; return 200 "x"; }
    location = /expires { expires 60; return 200 "x"; }
    location = /vars { return 200 "$request_method $scheme $server_protocol $host $arg_a $is_args
$args $query_string $document_uri $server_name $http_x_y $cookie_c $content_length\n"; }
    location = /escape { return 200 "a\tb \"q\" \\ ''"; }
    """,
    (
        "/200", "/200text", "/200text.html", "/typed", "/200empty", "/204", "/204text", "/201",
        "/301", "/301?a", "/302", "/302?a=5", "/303", "/304", "/305", "/307", "/308",
        "/301none", "/url?x=1",
        *(f"/{code}" for code in (
            400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 418,
            421, 429, 444, 451, 494, 497, 499, 500, 501, 502, 503, 504, 505, 507, 509, 599,
        )),
        "/escape", "/400text", "/404text", "/404empty", "/404empty?none=x", "/500text", "/headers",
        "/headers200", "/vars?a=b%20c", "/vars",
        ask("GET", "/vars?A=1", "X-Y: z", "Cookie: c=d; e=f"),
        ask("POST", "/vars", body=b"12345"), ask("HEAD", "/200text"), ask("HEAD", "/404"),
        ask("GET", "/404", "User-Agent: Mozilla/5.0 Chrome/99"),
        ask("POST", "/404", body=b"12345"),
        b"GET /404 HTTP/1.1\r\nHost: NAME\r\n\r\n", b"GET /400 HTTP/1.1\r\nHost: NAME\r\n\r\n",
        b"GET /400text HTTP/1.1\r\nHost: NAME\r\n\r\n",
        b"GET /500 HTTP/1.1\r\nHost: NAME\r\n\r\n", b"GET /503 HTTP/1.1\r\nHost: NAME\r\n\r\n",
        b"GET /301 HTTP/1.0\r\nHost: NAME\r\n\r\n", b"GET /413 HTTP/1.1\r\nHost: NAME\r\n\r\n",
        b"GET /204 HTTP/1.1\r\nHost: NAME\r\n\r\n",
    ),
)  # fmt: skip

IF = Section(
    "if",
    r"""
    set $result "";
    set $outer "server";
    if ($arg_server = yes) { set $outer "server-if"; }
    if ($arg_stop) { return 403; }
    if ($arg_go ~ ^(.)(.*)$) { rewrite ^ /got/$2$1? last; }
    location /got { return 200 "got $uri\n"; }
    location /outer { return 200 "$outer\n"; }
    location /truth { if ($arg_v) { return 200 "true\n"; } return 200 "false\n"; }
    location /equal { if ($arg_v = "a b") { return 200 "a b\n"; }
        if ($arg_v = x) { return 200 "x\n"; }
        if ($arg_v != "") { return 200 "other\n"; } return 200 "empty\n"; }
    location /match { if ($arg_v ~ "^a(.*)") { return 200 "a+$1\n"; }
        if ($arg_v ~* ^B(?<rest>.*)) { return 200 "b+$rest\n"; }
        if ($arg_v !~ c) { return 200 "no c\n"; } if ($arg_v !~* d) { return 200 "no d\n"; }
        return 200 "cd\n"; }
    location /stale { if ($arg_v ~ ^(x+)) { set $seen 1; } if ($arg_w ~ ^(y+)) { set $seen 2; }
        return 200 "$seen [$1]\n"; }
    location /method { if ($request_method = POST) { return 200 "post\n"; }
        if ($request_method !~ ^(GET|HEAD)$) { return 405; } return 200 "get\n"; }
    location /isfile { if (-f $document_root$arg_f) { return 200 "file\n"; }
        if (-d $document_root$arg_f) { return 200 "directory\n"; }
        if (-e $document_root$arg_f) { return 200 "exists\n"; }
        if (!-e $document_root$arg_f) { return 200 "nothing\n"; } return 200 "?\n"; }
    location /exec { if (-x $document_root$arg_f) { return 200 "x\n"; }
        if (!-x $document_root$arg_f) { return 200 "not x\n"; } }
    location /notfile { if (!-f $request_filename) { rewrite ^ /fallback.txt last; } }
    location /dir/ { if (!-f $request_filename) { return 404; } }
    location /headers { add_header X-Out 1; if ($arg_h) { add_header X-In $arg_h; }
        return 200 "h\n"; }
    location /static/ { alias SITE/www/dir/; add_header X-Out 1;
        if ($arg_h) { add_header X-In 2; } }
    location /two { add_header X 0; if ($arg_a) { add_header X a; set $result "${result}a"; }
        if ($arg_b) { add_header X b; set $result "${result}b"; } return 200 "$result\n"; }
    location /twofile { root SITE/www; rewrite ^/twofile/(.*) /$1 break; }
    location /ifbreak { if ($arg_b) { break; } return 200 "after\n"; }
    location /ifrewrite { if ($arg_r) { rewrite ^ /a.txt break; } return 200 "after $uri\n"; }
    location /iflast { if ($arg_r) { rewrite ^ /got/last last; } return 200 "after $uri\n"; }
    location /ifroot/ { if ($arg_o) { root SITE/www/other; } rewrite ^/ifroot/(.*)$ /$1 break; }
    location /iferr { error_page 404 /404.html; if ($arg_e) { error_page 404 =200 /page.html; }
        set $x 1; }
    location /ifexpires { expires 10; if ($arg_e) { expires 20; } return 200 "x"; }
    location /nested { if ($arg_a) { set $n a; } if ($arg_b) { set $n "${n}b"; }
        if ($n = ab) { return 200 "both\n"; } return 200 "$n\n"; }
    location /args { set $args "x=1&$args"; return 200 "$args $arg_x $is_args $query_string\n"; }
    location /argsfile { set $args ""; rewrite ^ /args2 last; }
    location /args2 { return 200 "[$args]\n"; }
    location /uninit { return 200 "[$seen]\n"; }
    location /zero { if ($arg_v = 0) { return 200 "zero\n"; } if ($arg_v) { return 200 "t\n"; }
        return 200 "f\n"; }
    location /host { if ($host = if) { return 200 "host\n"; } return 200 "no\n"; }
    location /agent { if ($http_user_agent ~ MSIE) { return 302 /msie; } return 200 "ok\n"; }
    """,
    (
        "/outer", "/outer?server=yes", "/outer?stop=1", "/outer?stop=0", "/x?go=abc",
        "/a.txt?go=z", "/truth", "/truth?v=", "/truth?v=0", "/truth?v=00", "/truth?v=1",
        "/truth?v=01", "/equal", "/equal?v=x", "/equal?v=X", "/equal?v=a%20b", "/equal?v=y",
        "/match?v=abc", "/match?v=bcd", "/match?v=BCD", "/match?v=xyz", "/match?v=xc",
        "/match?v=xcd", "/stale?v=xx", "/stale?w=yy", "/stale?v=xx&w=yy", "/stale?v=xx&w=z",
        "/stale", "/method", ask("POST", "/method", body=b"x"), ask("PUT", "/method"),
        ask("HEAD", "/method"), "/isfile?f=/a.txt", "/isfile?f=/dir", "/isfile?f=/none",
        "/isfile?f=/dir/", "/isfile?f=/a.txt/", "/isfile?f=", "/exec?f=/a.txt", "/exec?f=/dir",
        "/exec?f=/none", "/notfile", "/dir/file.txt", "/dir/none", "/dir/", "/headers",
        "/headers?h=5", "/static/file.txt", "/static/file.txt?h=1", "/static/", "/static/?h=1",
        "/static/none?h=1", "/two", "/two?a=1", "/two?b=1", "/two?a=1&b=1", "/twofile/a.txt",
        "/ifbreak", "/ifbreak?b=1", "/ifrewrite", "/ifrewrite?r=1", "/iflast", "/iflast?r=1",
        "/ifroot/a.txt", "/ifroot/a.txt?o=1", "/ifroot/sub/?o=1", "/ifroot/sub?o=1", "/iferr",
        "/iferr?e=1", "/ifexpires", "/ifexpires?e=1", "/nested", "/nested?a=1", "/nested?a=1&b=1",
        "/args", "/args?y=2", "/argsfile?z=1", "/uninit", "/zero?v=0", "/zero?v=1", "/zero",
        "/host", "/agent", ask("GET", "/agent", "User-Agent: MSIE 6"),
    ),
)  # fmt: skip
