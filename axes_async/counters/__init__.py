"""What is counted and when it locks. Pure: no Django, no Redis, no clock."""
