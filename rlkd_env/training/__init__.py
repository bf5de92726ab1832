"""What training a network is made of: optimiser and schedule, the teacher, and its logits that are kept."""
