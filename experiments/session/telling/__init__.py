"""What is said of a run when it is over: its table, what it means, and what to do next."""
