"""How much of the batch reward each instance's temperature earned."""
