"""Who gets in: the web configuration file, TLS, and the gate in front of all routes (`docs/security.md`)."""
