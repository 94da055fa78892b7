"""From vectors to bytes and back, whatever the compressor.

============ =======================================================================
`inputs`     the vectors that may be compressed, and what is said of anything else
`packet`     the frame: its header, its check sum, its payload
`payload`    a payload read without trust, and what several codecs share
`codecs`     the table of codecs: which class reads the packets of a number
`ids`        places in few bytes
`budget`     what one packet may cost its reader
`reading`    a packet, or one inside another, opened within that budget
`tensors`    what was decoded, added to a tensor on a device
`apply`      `add_to` and `decompress`
`recent`     small sparse packets that were opened last, for clients in the server's process
============ =======================================================================
"""
