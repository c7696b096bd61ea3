"""Where in a radiograph a network saw its evidence."""
