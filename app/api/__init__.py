"""Thin HTTP routes: parse, call a service, answer."""
