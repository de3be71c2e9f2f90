"""Flicker ships the audit logs behind REST APIs to a SIEM."""
