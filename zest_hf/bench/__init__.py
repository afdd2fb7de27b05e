"""Measures that need no network: what a crowd would take, by the decisions of its nodes alone."""
