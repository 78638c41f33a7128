"""Ties to serving engines; each uses the public face of tuner alone."""
