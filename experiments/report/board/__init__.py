"""The runs of a folder as a local web page that follows them while they train."""
