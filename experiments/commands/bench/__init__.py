"""``rlkd bench``: measures what a step costs."""
