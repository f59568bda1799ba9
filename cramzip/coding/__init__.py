"""From tokens to groups and back: vectors, corrections. Knows no paths and no terminals."""
