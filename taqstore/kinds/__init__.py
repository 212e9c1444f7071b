"""What each group of the format holds: its template and its reader."""
