"""Toy tasks: small worlds in which one thing about attention can be watched while it forms."""
