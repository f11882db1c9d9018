"""What the tests stand on: real servers, a proxy that counts and breaks, and one view of every store."""
