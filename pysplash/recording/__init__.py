"""Records of what a pool did: written, read, replayed and plotted."""
