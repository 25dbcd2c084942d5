"""The paper's tables: the printed numbers, the batches that reproduce them, and both side by side."""
