"""Alerts: what somebody should look at; opened by evidence, closed when it is over."""
