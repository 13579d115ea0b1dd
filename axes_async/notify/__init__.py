"""What people are told, and how: mails, links and how often. When they are told is decided in ``tasks``."""
