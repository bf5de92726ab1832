"""Faster R-CNN with a feature pyramid, the networks that it stands on, and pretrained weights."""
