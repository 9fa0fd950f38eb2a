"""Where bytes lie: content-addressed blobs, and the artefacts of each job."""
