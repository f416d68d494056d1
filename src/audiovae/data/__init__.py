"""Where training sound comes from: files -> x [B, C, T]."""
