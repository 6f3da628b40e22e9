"""Webhooks to callers: secrets, deliveries, and whatever configures them."""
