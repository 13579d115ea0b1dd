"""Counters and outbox in Redis or Valkey."""
