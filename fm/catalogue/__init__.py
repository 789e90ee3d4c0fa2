"""Items, users, and who met what."""
