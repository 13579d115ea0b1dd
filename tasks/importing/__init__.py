"""Moving over from django-axes or django-defender."""
