"""The user that the demo logs in as. Everyone can read the password, so it exists only while `DJANGO_DEBUG` is on."""

USERNAME = "demo"
PASSWORD = "demo-password-1"
