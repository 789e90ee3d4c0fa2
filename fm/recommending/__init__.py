"""The best items: exactly, for new people, and as vectors for other indexes."""
