"""The server, put together: the only package that names concrete classes.

Everything long-lived is an async context manager on one stack, and closes before what it uses.
"""
