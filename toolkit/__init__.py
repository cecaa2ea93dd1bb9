"""What the scripts stand on: nothing in here knows of the files at the top of the repository."""
