"""Networks that classify images, one file for each family."""
