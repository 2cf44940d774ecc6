"""Conformance: a played server that judges a real controller by what it sends."""
