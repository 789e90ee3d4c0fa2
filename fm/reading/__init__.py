"""Anything to a Dataset: files, frames, channels, request bodies."""
