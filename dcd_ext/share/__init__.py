"""Share bundles: pack them, verify them, export their networks, and audit those somebody else made."""
