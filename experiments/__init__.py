"""What flipping the kernel does, and does not, measured on real images: `python -m experiments run`."""
