"""What every call passes through, in this order.

Errors, refusals, access, tenure, limits, decoding, auditing, validation.
"""
