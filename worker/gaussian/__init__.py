"""The mathematics: numpy and scipy, float64, no clock, no input or output."""
