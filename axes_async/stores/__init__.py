"""Where counters live: the contract, its implementations, and the one that the settings ask for."""
