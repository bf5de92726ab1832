"""What ``rlkd report`` reads, draws and writes about runs and comparisons."""
