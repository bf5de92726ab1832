"""What a person runs: the ``rlkd`` command line."""
