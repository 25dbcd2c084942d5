"""Every parser against files and values that are nearly right, damaged, or hostile."""
