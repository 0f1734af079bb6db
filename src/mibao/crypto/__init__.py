"""Bytes in, bytes out: the only part of mibao that talks to the cipher library."""
