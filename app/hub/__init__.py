"""The model hub: repositories of immutable commits over content-addressed blobs, read by stock Hugging Face clients."""
