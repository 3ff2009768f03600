"""What a pool did: written as lines, read again, decided again, drawn."""
