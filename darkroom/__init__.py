"""The core of Darkroom: the life of a job, paying once, permits, batches."""
