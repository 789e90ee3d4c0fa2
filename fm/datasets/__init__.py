"""The data set of the demo, with its attribution in food-world-cup.md."""
