"""Data sets of images with boxes: what is annotated, how images are fitted, and one file for each kind of source."""
