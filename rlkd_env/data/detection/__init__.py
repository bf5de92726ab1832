"""Images with boxes: what is annotated, how it is fitted, and one file a kind of source."""
