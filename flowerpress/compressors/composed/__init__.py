"""Compressors made of others.

============ =======================================================================
`chain`      ``a+b``: b compresses the values that a leaves
`scaled`     an unbiased compressor, scaled down until it is a contraction
`induced`    what one compressor loses, another sends
`blocked`    a vector cut into blocks, each compressed by itself
`entropy`    the codes of a packet in fewer bits, by rANS
`huffman`    the same by Huffman codes
`repeat`     a compressor applied several times, as one packet
`nesting`    how deep they go, and of how many packets theirs are
============ =======================================================================
"""
