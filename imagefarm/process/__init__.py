"""Everything about being a process: pidfiles, logs, sockets, privileges, limits, supervision."""
