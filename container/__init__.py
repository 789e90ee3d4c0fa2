"""The SageMaker container: training and serving as AWS calls them. See README.md in this folder."""
