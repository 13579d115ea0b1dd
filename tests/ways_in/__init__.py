"""Every way to log in, through the real library: each is locked at the limit and recovers."""
