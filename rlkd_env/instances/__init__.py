"""An instance of a batch: what the networks say about it, what an agent sees of it, its temperature."""
