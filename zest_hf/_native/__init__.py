"""The native code, and the only modules that touch it. Raw cffi objects never leave this package."""
