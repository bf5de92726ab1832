"""Comparisons of arms × tasks × seeds: planning, executing and analysing their runs."""
