"""What moves bytes: sockets and HTTP on one side, sessions and protocols on the other."""
