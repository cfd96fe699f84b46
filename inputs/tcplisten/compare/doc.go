// Package compare measures tcp_listen beside what else finds the owners of
// listening sockets. It is a module of its own, so that nobody who uses sockwatch
// downloads the others.
package compare
