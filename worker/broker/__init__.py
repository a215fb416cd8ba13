"""Redis, and nothing else: admission, intake, settling, the ledger, the registry, verdicts, and an embedded server."""
