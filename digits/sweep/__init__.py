"""Sweeps: many runs of one command, gone on with after any stop, and what they have found."""
