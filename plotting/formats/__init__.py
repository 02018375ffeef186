"""Readers, one a format. Each takes a path, returns plain values and raises errors.LogError otherwise."""
