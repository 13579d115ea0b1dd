"""What people ask about lockouts: what is locked now, why an attempt is denied, what has happened."""
