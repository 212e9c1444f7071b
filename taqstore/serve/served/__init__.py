"""The stores that are served: opened once, looked at again when they grow, kept in memory."""
