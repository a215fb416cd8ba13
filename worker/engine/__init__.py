"""The worker's engine: three overlapping stages, intake | compute | settle, around one backbone."""
