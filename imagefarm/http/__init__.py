"""HTTP/1.1: message values, sans-IO parsing, filters and the connection."""
