"""What shrinks: pruning, quantizing, the gate, and the whole run."""
