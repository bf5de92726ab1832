"""What training repeats, captured once as CUDA graphs and replayed: a run's update, a network's own, measurements."""
