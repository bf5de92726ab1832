"""Methods that compare what the networks compute of one image at a time: maps and pooled features."""
