"""What may choose a run's images in the place of a shuffled pass: exploration and a curriculum."""
