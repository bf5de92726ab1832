"""``rlkd bench``: what a step costs."""
