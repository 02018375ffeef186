"""Helpers of the plotting tests: counting checks, and logs made up in every format the readers know."""
