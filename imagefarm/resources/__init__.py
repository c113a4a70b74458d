"""The Twisted Resource tree: virtual hosts, locations and their leaves."""
