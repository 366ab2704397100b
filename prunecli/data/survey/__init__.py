"""What is odd about the images of a data set."""
