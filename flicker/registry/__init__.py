"""What Flicker remembers, here or in S3, and who may write it."""
