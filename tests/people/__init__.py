"""Tests of workers and administrators."""
