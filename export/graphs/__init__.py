"""What graphs of every kind are written from: a plan, named weights, operators, and the parts of layers."""
