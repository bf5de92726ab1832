"""Arms × tasks × seeds: which runs that makes, who makes them, and what they say."""
