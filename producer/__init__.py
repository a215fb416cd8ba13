"""What runs beside a camera: the client library, sources of frames, and `gaussline produce`. It needs no torch."""
