"""The image, the chart and what watches them, tried with the real tools."""
