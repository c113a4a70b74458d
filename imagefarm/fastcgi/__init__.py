"""FastCGI 1.0: codec, state table, client and responder."""
