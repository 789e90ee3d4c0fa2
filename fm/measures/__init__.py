"""Losses, and metrics of predictions and of rankings, in plain numpy."""
