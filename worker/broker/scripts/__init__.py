"""The Lua scripts, each one atomic step of a frame's way."""
