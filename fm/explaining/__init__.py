"""What a score is made of, which pairs matter, and pictures of both."""
