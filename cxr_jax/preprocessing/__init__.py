"""From grey uint8 images to what a network sees: random changes and normalisation, both inside the compiled step."""
