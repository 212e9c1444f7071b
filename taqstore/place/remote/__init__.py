"""Object stores: reached, asked, and shared by writers."""
