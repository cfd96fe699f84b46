// Package compare compares the cost of tcp_listen with that of other programs and libraries
// that find the owners of listening sockets. It is a separate module, so that users of
// sockwatch do not download those libraries.
package compare
