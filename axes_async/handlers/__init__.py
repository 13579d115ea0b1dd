"""Where code that was written for django-axes looks for its handler; nothing else is here."""
