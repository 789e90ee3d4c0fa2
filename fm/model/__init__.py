"""A trained model: what people ask of it, and its files."""
