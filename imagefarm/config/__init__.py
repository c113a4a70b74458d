"""The configuration language: nginx.conf text to typed, frozen values."""
