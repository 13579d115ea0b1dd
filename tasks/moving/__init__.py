"""Moving over from another package: its rows are read, carried over, counted, and told to the store."""
