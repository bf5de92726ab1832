"""The commands of ``rlkd``, a file or a folder each."""
