"""Whole experiments, as the shell runs them."""
