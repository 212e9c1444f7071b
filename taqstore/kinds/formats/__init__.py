"""What formats of weights and inputs are called and hold, and which linear has which."""
