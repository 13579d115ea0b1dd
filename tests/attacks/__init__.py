"""Attacks on a site as it is deployed: web processes of each kind, real servers, and what breaks between them."""
