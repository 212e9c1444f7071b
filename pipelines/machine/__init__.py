"""What a machine has for running models: libraries, versions, room on its disk."""
