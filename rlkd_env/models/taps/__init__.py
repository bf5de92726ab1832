"""What a network shows besides its logits, and how that is found in a network that does not say."""
