"""Image resizing: recipe, geometry, pipeline, worker pool."""
