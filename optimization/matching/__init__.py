"""Choosing parameters by name, owner and shape: what needs no framework."""
