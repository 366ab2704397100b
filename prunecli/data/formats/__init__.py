"""The formats of image data sets, one file each."""
