"""The paper's tables: what is printed, what a batch runs for them, and how runs are set beside the print."""
