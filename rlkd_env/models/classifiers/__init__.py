"""Networks that classify images: one file a family."""
