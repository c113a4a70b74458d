"""Reading a configuration: the table of all directives, the variables, the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from imagefarm.cache.directives import DIRECTIVES as CACHE
from imagefarm.config.loader import Loaded, convert, override
from imagefarm.config.parse import Parsed, parse_file, parse_text
from imagefarm.config.table import DirectiveTable
from imagefarm.config.variables import VariableTable
from imagefarm.fastcgi.directives import DIRECTIVES as FASTCGI
from imagefarm.fastcgi.variables import VARIABLES as FASTCGI_VARIABLES
from imagefarm.http.directives import DIRECTIVES as ENGINE
from imagefarm.http.tls import DIRECTIVES as TLS
from imagefarm.http.variables import variable_table
from imagefarm.image.directives import DIRECTIVES as IMAGE
from imagefarm.image.variables import VARIABLES as IMAGE_VARIABLES
from imagefarm.process.directives import DIRECTIVES as PROCESS
from imagefarm.proxy.directives import DIRECTIVES as PROXY
from imagefarm.proxy.variables import VARIABLES as PROXY_VARIABLES
from imagefarm.resources.checks import problems
from imagefarm.resources.directives import DIRECTIVES as RESOURCES
from imagefarm.resources.directives import HTTP_BLOCK
from imagefarm.resources.rewrite import CHANGEABLE
from imagefarm.resources.rewrite_directives import DIRECTIVES as REWRITE

from .overrides import override_port, override_root

#: The configurations and pages that come with the package.
SHIPPED: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "etc")


@frozen
class Options:
    """What the command line says. Paths are absolute; ``root`` and the ports are optional.

    ``program`` is what USR2 starts, if that is not the same role with the same options.
    """

    role: str
    config: str
    prefix: str
    settings: tuple[str, ...] = ()
    root: str | None = None
    port: int | None = None
    tls_port: int | None = None
    program: tuple[str, ...] = ()


def directive_table() -> DirectiveTable:
    """All directives, grouped as the reference prints them."""
    return DirectiveTable(
        {
            "Processes": PROCESS,
            "Servers and locations": RESOURCES,
            "Rewriting": REWRITE,
            "HTTP": ENGINE,
            "TLS": TLS,
            "Upstreams and proxying": PROXY,
            "FastCGI": FASTCGI,
            "Cache": CACHE,
            "Resizer": IMAGE,
        }
    )


def variables(clock: Callable[[], float] = time.time) -> VariableTable:
    """All variables."""
    return variable_table(
        clock=clock, extra={**PROXY_VARIABLES, **FASTCGI_VARIABLES, **IMAGE_VARIABLES}
    )


def read(options: Options, clock: Callable[[], float] = time.time) -> Loaded:
    """Read the configuration. Raises `ConfigurationError` with the errors of all directives.

    What is wrong beyond them is in ``problems``: whoever builds from the result raises it with
    what else is found. ``clock`` gives seconds since the epoch, to variables.
    """
    table = directive_table()
    conf_dir = os.path.dirname(os.path.abspath(options.config))
    parsed = parse_file(options.config, fallback_dirs=(SHIPPED,))
    for setting in options.settings:
        parsed = override(parsed, _setting(setting, conf_dir), table)
    directives = parsed.directives
    if options.root is not None:
        directives = override_root(directives, options.root)
    directives = override_port(directives, options.port, options.tls_port)
    known = variables(clock)
    loaded = convert(
        evolve(parsed, directives=directives),
        table=table,
        variables=known,
        prefix=options.prefix,
        conf_dir=conf_dir,
    )
    taken = known.exact.keys() - CHANGEABLE
    found = [
        found
        for http in loaded.root.blocks(HTTP_BLOCK)
        for found in problems(http, taken, known.exact)
    ]
    return evolve(loaded, problems=tuple(found))


def _setting(text: str, conf_dir: str) -> Parsed:
    """One ``--set``; the last ";" may be left out."""
    text = text if text.rstrip().endswith((";", "}")) else text + ";"
    return parse_text(text, "--set", conf_dir=conf_dir, fallback_dirs=(SHIPPED,))
