"""Methods that compare how the images of a batch, or of the training set, relate to one another."""
