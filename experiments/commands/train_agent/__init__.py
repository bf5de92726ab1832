"""``rlkd train-agent``: a policy trained over many runs."""
