"""Where counters live: the contract, its two implementations, and the one that the settings ask for."""
