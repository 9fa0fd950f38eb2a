"""Where a published model comes from: a manifest of every file, signed, and its check without any service."""
