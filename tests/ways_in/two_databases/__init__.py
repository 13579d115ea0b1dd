"""A site whose rows of axes_async are in a database of their own, and its requests in transactions."""
