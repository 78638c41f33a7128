"""Holds a variant's outputs against the reference."""
