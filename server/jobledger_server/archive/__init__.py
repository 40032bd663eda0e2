"""The archive of the signed envelopes, in files."""
