"""Counters in the database: the store of a site without Redis, and what decides while the Redis store cannot."""
