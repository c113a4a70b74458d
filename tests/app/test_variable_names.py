"""Each of nginx's variables is there, or named among the differences."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import variables
from imagefarm.config.errors import Invalid
from imagefarm.http.message import ForwardedPeer
from imagefarm.http.proxy_protocol import ProxyHeader, Tlv
from tests.http.samples import request

DIFFERENCES = Path(__file__).parents[2] / "docs" / "differences.md"

#: "Alphabetical index of variables" of nginx's documentation, http only.
NAMES = """
ancient_browser arg_ args binary_remote_addr body_bytes_sent bytes_sent connection
connection_requests connection_time connections_active connections_reading connections_waiting
connections_writing content_length content_type cookie_ date_gmt date_local document_root
document_uri fastcgi_path_info fastcgi_script_name geoip_area_code geoip_city
geoip_city_continent_code geoip_city_country_code geoip_country_code geoip_country_name
geoip_latitude geoip_longitude geoip_org geoip_region gzip_ratio host hostname http2 http3 http_
https invalid_referer is_args is_request_port jwt_claim_ jwt_header_ jwt_payload
limit_conn_status limit_rate limit_req_status memcached_key modern_browser msec msie
nginx_version otel_parent_id otel_parent_sampled otel_span_id otel_trace_id pid pipe
proxy_add_x_forwarded_for proxy_host proxy_port proxy_protocol_addr proxy_protocol_port
proxy_protocol_server_addr proxy_protocol_server_port proxy_protocol_tlv_ query_string
realip_remote_addr realip_remote_port realpath_root remote_addr remote_port remote_user request
request_body request_body_file request_completion request_filename request_id request_length
request_method request_port request_time request_uri scheme secure_link secure_link_expires
sent_http_ sent_trailer_ server_addr server_name server_port server_protocol session_log_id
slice_range spdy ssl_alpn_protocol ssl_cipher ssl_ciphers ssl_client_cert ssl_client_escaped_cert
ssl_client_fingerprint ssl_client_i_dn ssl_client_i_dn_legacy ssl_client_raw_cert ssl_client_s_dn
ssl_client_s_dn_legacy ssl_client_serial ssl_client_v_end ssl_client_v_remain ssl_client_v_start
ssl_client_verify ssl_curve ssl_curves ssl_early_data ssl_protocol ssl_server_name ssl_session_id
ssl_session_reused status tcpinfo_rcv_space tcpinfo_rtt tcpinfo_rttvar tcpinfo_snd_cwnd
time_iso8601 time_local uid_got uid_reset uid_set upstream_addr upstream_bytes_received
upstream_bytes_sent upstream_cache_status upstream_connect_time upstream_cookie_
upstream_header_time upstream_http_ upstream_last_server_name upstream_queue_time
upstream_response_length upstream_response_time upstream_status upstream_trailer_ uri
"""


class NamesTests(SynchronousTestCase):
    def test_there_or_named_as_missing(self) -> None:
        table = variables()
        text = DIFFERENCES.read_text(encoding="utf-8")
        missing = {name for name in NAMES.split() if name not in {*table.exact, *table.prefixes}}
        told = re.findall(r"`\$([a-z0-9_]+\*?)`", text)
        for name in missing:
            fits = [one for one in told if name == one or name.startswith(one.rstrip("*"))]
            self.assertTrue([one for one in fits if one == name or one.endswith("*")], name)

    def test_tlvs_have_names(self) -> None:
        table = variables()
        for name in ("alpn", "ssl_cn", "ssl_verify", "0x01", "0xeE"):
            table.compile(f"$proxy_protocol_tlv_{name}")
        self.assertRaises(Invalid, table.compile, "$proxy_protocol_tlv_color")

    def test_tlvs(self) -> None:
        inner = b"\x21\x00\x07TLSv1.3\x22\x00\x02cn"
        ssl = b"\x01\x00\x00\x00\x02" + inner
        tlvs = (Tlv(1, b"h2"), Tlv(0x20, ssl), Tlv(0xEE, b"own"))
        peer = ForwardedPeer(
            "192.0.2.1", 1, ("", 80), 1, proxy=ProxyHeader("192.0.2.2", 2, "", 0, 2, tlvs)
        )
        asked = request(peer=peer)
        for name, value in (
            ("alpn", b"h2"), ("0x01", b"h2"), ("0xEE", b"own"), ("netns", b""), ("ssl", ssl),
            ("ssl_version", b"TLSv1.3"), ("ssl_cn", b"cn"), ("ssl_cipher", b""),
            ("ssl_verify", b"2"),
        ):  # fmt: skip
            template = variables().compile(f"$proxy_protocol_tlv_{name}")
            self.assertEqual(template(asked), value, name)
        for broken in (b"", b"\x01", ssl[:-1]):
            header = ProxyHeader(version=2, tlvs=(Tlv(0x20, broken),))
            asked.peer = ForwardedPeer("192.0.2.1", 1, ("", 80), 1, proxy=header)
            template = variables().compile("$proxy_protocol_tlv_ssl_cn")
            self.assertEqual(template(asked), b"")
