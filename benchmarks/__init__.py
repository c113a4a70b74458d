"""Us and the peers side by side, alternating, in one run: what counts is the ratio."""
