"""A narrow student of any segmentation bundle in the Model Zoo's format, and the bundle that distils it."""
