"""How a person unlocks the own account: by a link that comes by mail, or by a new password."""
