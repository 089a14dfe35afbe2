"""Measures models: quality, latency, memory and size, each with its interval."""
