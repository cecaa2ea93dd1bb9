"""Requests to an endpoint, and packed models."""
