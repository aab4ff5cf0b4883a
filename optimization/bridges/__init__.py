"""Bridges to configurations of other libraries: from their words to ours, and back."""
