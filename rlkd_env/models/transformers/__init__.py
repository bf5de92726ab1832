"""Vision transformers, and the second head that some of them have for what a teacher says."""
