"""The response cache: policy, the store on disk, single-flight filling."""
