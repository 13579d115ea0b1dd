"""A site whose users are known by a number."""
