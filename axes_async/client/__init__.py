"""Who is asking: identity, address, normal forms, exemptions, and how a log names a client."""
