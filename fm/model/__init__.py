"""The model, its score and its file."""
