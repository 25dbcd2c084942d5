"""The paper's tables: printed numbers, batches of runs that reproduce them, and comparisons of the two."""
