"""Poses into files that other tools read."""
