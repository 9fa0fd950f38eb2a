"""The service: takes orders and hands out results. Never loads torch."""
