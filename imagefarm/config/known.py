"""Directives of nginx's stock modules that are not in our table."""

HARMLESS: frozenset[str] = frozenset()
UNSAFE: frozenset[str] = frozenset()
