"""What drives a run, or several in lock-step, from the first update to the last: rules, policies and agents."""
