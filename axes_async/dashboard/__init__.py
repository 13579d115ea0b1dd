"""The dashboard in the admin: what goes on now, and what went on in the last hour, day and week."""
