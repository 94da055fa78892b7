"""The gRPC link: compressed training across a network, with clients that live as long as the run.

- `certs`: the certificates by which server and clients know each other.
"""
