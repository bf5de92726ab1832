"""One run from start to end: its phases, checkpoints, records, folder and summary."""
