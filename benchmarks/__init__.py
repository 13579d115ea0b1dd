"""What axes_async costs and keeps, measured: each module prints its command, its figures and their targets."""
