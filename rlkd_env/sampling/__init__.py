"""What may choose a run's images in place of a shuffled pass over the data: exploration and a curriculum."""
