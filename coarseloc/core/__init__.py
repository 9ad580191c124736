"""What everything stands on: the domain's words, identities, geometry, filters, settings. Pure, but for settings."""
