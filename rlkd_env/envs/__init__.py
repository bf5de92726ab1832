"""The KD run as Gymnasium environments."""
