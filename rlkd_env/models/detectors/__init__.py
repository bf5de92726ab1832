"""Faster R-CNN with a feature pyramid, the backbones it is built on, and pretrained weights."""
