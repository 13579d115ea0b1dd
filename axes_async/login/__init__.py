"""One login attempt, from the reservation to the response."""
