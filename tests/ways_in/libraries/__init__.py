"""A site that logs in through Django REST framework, simplejwt, allauth and django-ninja."""
