"""Where frames come from: a folder, a video or camera, or rendered parts. Each source is an iterable of shots."""
