"""Benchmarks: each prints a table of the documentation."""
