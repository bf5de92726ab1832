"""Temperature rules: everything that sets temperatures without learning over runs."""
