"""Where bytes of artifacts are kept: `files.FileBlobs`."""
