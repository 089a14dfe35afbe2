"""Smaller numbers: how each form is made, what it does to each product, and the gate that it has to pass."""
