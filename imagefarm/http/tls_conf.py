"""``ssl_conf_command`` and ``proxy_ssl_conf_command``: the names and values of SSL_CONF_cmd(3).

The bindings have no SSL_CONF_cmd, so these are the commands that have a function of their own.
None of them can bring back what is never offered: old versions, compression, renegotiation.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from imagefarm.config.errors import Invalid

from . import libssl

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
#: Added to every list of ciphers that the configuration gives.
NEVER: Final = ":!aNULL:!eNULL:!EXPORT:!LOW:!DES:!3DES:!RC4:!RC2:!MD5:!SEED:!IDEA:!PSK:!SRP"
#: Flags of ``Options`` that are off unless they are set (openssl/ssl.h).
_SET: Final = {
    "allownodhekex": 1 << 10, "prioritizechacha": 1 << 21, "serverpreference": 1 << 22,
    "norenegotiation": 1 << 30,
}  # fmt: skip
#: Those that are on unless the option of the opposite is set.
_UNSET: Final = {
    "sessionticket": 1 << 14, "encryptthenmac": 1 << 19, "antireplay": 1 << 24,
    "extendedmastersecret": 1 << 0, "canames": 1 << 9,
}  # fmt: skip
_NAMES: Final = {
    name.lower(): name
    for name in (
        "Ciphersuites", "CipherString", "Groups", "Curves", "SignatureAlgorithms", "MinProtocol",
        "MaxProtocol", "Options",
    )
}  # fmt: skip


def command(name: str, value: str) -> tuple[str, str]:
    """A command that has been tried. Raises `Invalid` in nginx's words."""
    found = _NAMES.get(name.lower(), name), value
    apply(SSL.Context(SSL.TLS_METHOD), found)
    return found


def apply(context: SSL.Context, said: tuple[str, str]) -> None:
    """Do what a command says. Raises `Invalid`."""
    name, value = said
    try:
        if name == "Ciphersuites":
            context.set_tls13_ciphersuites(value.encode())
        elif name == "CipherString":
            context.set_cipher_list((value + NEVER).encode())
        elif name in ("Groups", "Curves"):
            libssl.set_groups(context, value)
        elif name == "SignatureAlgorithms":
            libssl.set_signature_algorithms(context, value)
        elif name == "MinProtocol":
            context.set_min_proto_version(_VERSIONS[value])
        elif name == "MaxProtocol":
            context.set_max_proto_version(_VERSIONS[value])
        elif name == "Options":
            context.set_options(_options(value))
        else:
            raise Invalid(
                f'SSL_CONF_cmd("{name}", "{value}") is not supported, only '
                + ", ".join(_NAMES.values())
            )
    except (SSL.Error, libssl.Refused, KeyError, UnicodeError):
        libssl.forget_errors()
        raise Invalid(f'SSL_CONF_cmd("{name}", "{value}") failed') from None


def _options(value: str) -> int:
    """What is to be set, where it is not as it is anyway. Raises KeyError."""
    found = 0
    for word in value.split(","):
        flag = word.strip().lower()
        on = not flag.startswith("-")
        flag = flag.lstrip("+-")
        bit = _SET.get(flag) or _UNSET[flag]
        found |= bit if on is (flag in _SET) else 0
    return found
