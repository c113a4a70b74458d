"""Filters: plain functions from (request, response) to response."""
