//! Wire types of the admin socket.
