"""Removing layers, heads and neurons for real: what they are worth, what they cost, which ones go."""
