"""Where classified images come from: one file a kind of source."""
