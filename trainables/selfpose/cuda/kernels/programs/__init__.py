"""What runs on the GPU itself, in Triton's part of Python: no annotations, pointers and tiles."""
