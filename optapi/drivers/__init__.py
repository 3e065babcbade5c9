"""Drivers: a rule run to its end."""
