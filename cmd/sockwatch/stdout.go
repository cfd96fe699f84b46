package main

import (
	"errors"
	"io"
	"os"

	"golang.org/x/term"
)

// A dataWriter is where commands print their data. It keeps the first error, so that a
// command fails if its data is lost.
type dataWriter struct {
	io.Writer
	err error
}

func (w *dataWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil && w.err == nil {
		w.err = err
	}
	return n, err
}

// terminal returns the descriptor of the terminal that w writes to, if it is one.
func (w *dataWriter) terminal() (fd int, ok bool) {
	f, ok := w.Writer.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// standardOutput returns the writer of the process's standard output.
func standardOutput() io.Writer {
	if closedAtStart(1) {
		return closedOutput{}
	}
	return os.Stdout
}

// closedOutput stands for a standard output that was closed when the program started.
type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) { return 0, errClosedOutput }

var errClosedOutput = errors.New("standard output was closed, or is /dev/null, when the program started")
