"""Columns to features and back."""
