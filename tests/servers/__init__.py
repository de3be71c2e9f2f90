"""Servers that the tests poll."""
