"""One run that several processes share, started by ``torchrun``."""
