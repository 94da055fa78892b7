"""The gRPC link: a Flower Grid whose clients stay connected, at milliseconds a round.

====================== ==========================================================================
module                 what it has
====================== ==========================================================================
serve, join            a ServerApp whose clients come over the link; a client that works for it
grid                   `GrpcGrid`, Flower's Grid over the link
hub, peer, stream      all clients of a server; one client, across its connections; one of these
server, client         the two ends of a connection, over gRPC
codec, frames, pipes   a message as bytes; the frames of `link.proto`; messages cut into frames
certs, limits          who may log in, and what it may take
apps                   a ServerApp and a ClientApp by name
====================== ==========================================================================
"""

from flowerpress.transport.grid import GrpcGrid
from flowerpress.transport.hub import Hub
from flowerpress.transport.join import join
from flowerpress.transport.limits import Limits
from flowerpress.transport.serve import Service

__all__ = ["GrpcGrid", "Hub", "Limits", "Service", "join"]
