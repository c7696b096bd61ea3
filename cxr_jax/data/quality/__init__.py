"""How a radiograph was taken and stored, in numbers that were not made to tell disease from health."""
