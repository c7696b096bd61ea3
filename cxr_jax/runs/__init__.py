"""What a run leaves on disk: its folder, tables and logs, and how files are written."""
