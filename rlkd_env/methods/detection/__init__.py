"""Methods that compare what detectors compute beside the logits of their proposals."""
