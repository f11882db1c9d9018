"""The shop: products of the database, a cart in the session."""
