"""The pure part: values and decisions, without sockets, files, threads or clocks.

Everything here can be run a thousand times in a test without waiting for anything. The one dependency
below is `zest_hf._native.codec`, whose hash functions are pure as well.
"""
