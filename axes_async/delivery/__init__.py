"""How a web process tells the worker that there is something to write, without ever waiting for a broker."""
