"""Processes: pidfiles, log files, supervision."""
