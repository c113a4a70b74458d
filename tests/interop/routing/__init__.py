"""What test_rewrite_nginx asks: a configuration that uses every corner of routing, and requests.

Each section is a server block of its own, chosen by its name, and the requests to it.
"""
