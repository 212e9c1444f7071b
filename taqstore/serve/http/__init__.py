"""What any read-only service over HTTP needs; knows no stores."""
