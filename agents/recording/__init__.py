"""What is recorded of a run: its history, a sample of instances, the students that are kept, curves and times."""
