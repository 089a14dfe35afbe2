"""Linear maps in two factors of low rank: what goes through them, the factors, and how many directions stay."""
