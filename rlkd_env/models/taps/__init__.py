"""What a network shows beside its logits, and how that is found where the network does not say."""
